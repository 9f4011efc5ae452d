"""Training of the sequence encoder: packed streams beside a padded `nn.TransformerEncoder`.

    python -m benchmarks.training_sequence_encoder [--users 300] [--steps 12]

Made-up histories of 384-dimensional items with lengths as in chats (log-normal, median 14, at most 256). The
customary side pads batches of 32 users to the longest and runs `nn.TransformerEncoder` (norm first, causal and
padding mask) of the same width, depth and heads. Both score every position against every chunk of the batch as
negatives, with the same loss, optimizer and clipping. One thread; sides in turns; the best of the rounds counts,
as chunks predicted per second.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from training.sequence_batches import Sampler, corpus_of
from training.sequence_features import ItemSpace, states_of
from training.sequence_model import SequenceModel, SequenceSettings
from user_embeddings_dagster.evaluation.histories import Histories
from user_embeddings_dagster.evaluation.ranking import unit

D, WIDTH, LAYERS, HEADS, USERS = 384, 128, 2, 4, 32
TEMPERATURE = 0.05


def histories_of(users: int) -> Histories:
    """Random items; lengths as people's are."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(np.log(14), 1.1, users)), 2, 256).astype(np.int64)
    n = int(lengths.sum())
    ended = np.cumsum(rng.integers(60, 100_000, n))
    offsets = np.append(0, np.cumsum(lengths))
    return Histories(
        unit(rng.standard_normal((n, D))), offsets, np.arange(users).astype(str), ended, ended, np.arange(n)
    )


class Padded(nn.Module):
    """The customary model: linear in, causal transformer encoder, linear out."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.input, self.output = nn.Linear(D, WIDTH), nn.Linear(WIDTH, D)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def forward(self, items: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        """items [B, L, D], padding [B, L] bool → queries [B, L, D]."""
        causal = nn.Transformer.generate_square_subsequent_mask(items.shape[1])
        hidden = self.encoder(
            self.input(items), mask=causal, src_key_padding_mask=padding.float() * -1e9, is_causal=True
        )
        return self.output(hidden)


def _update(optimizer: torch.optim.Optimizer, model: nn.Module, queries: torch.Tensor, keys: torch.Tensor) -> None:
    """One optimizer step of InfoNCE; queries [Q, D] of the chunks keys [Q, D], each among all."""
    loss = F.cross_entropy(
        F.normalize(queries, dim=-1) @ F.normalize(keys, dim=-1).T / TEMPERATURE, torch.arange(len(keys))
    )
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def padded_steps(histories: Histories, steps: int) -> Callable[[], int]:
    """The customary side; returns the chunks predicted."""
    torch.manual_seed(0)
    model = Padded()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
    vectors = torch.from_numpy(histories.vectors)
    rng = np.random.default_rng(1)

    def run() -> int:
        predicted = 0
        for _ in range(steps):
            chosen = rng.choice(histories.n_histories, USERS, replace=False)
            rows = [torch.arange(int(histories.offsets[u]), int(histories.offsets[u + 1])) for u in chosen]
            items = nn.utils.rnn.pad_sequence([vectors[r[:-1]] for r in rows], batch_first=True)
            lengths = torch.tensor([len(r) - 1 for r in rows])
            real = torch.arange(items.shape[1]) < lengths[:, None]
            queries = model(items, ~real)[real]
            _update(optimizer, model, queries, torch.cat([vectors[r[1:]] for r in rows]))
            predicted += len(queries)
        return predicted

    return run


def packed_steps(histories: Histories, steps: int, mixer: str, dimension: int) -> Callable[[], int]:
    """Ours: packed histories of as many chunks as `USERS` users have on average."""
    torch.manual_seed(0)
    space = ItemSpace.of_items(np.zeros(D, np.float32), np.eye(D, dtype=np.float32), histories.vectors[0], 0.3, 0.25)
    corpus = corpus_of(
        histories, states_of(histories, space), histories.chunk_ids, np.zeros(len(histories.vectors)), "cpu"
    )
    settings = SequenceSettings(dimension=dimension, seed=0, mixer=mixer, width=WIDTH, layers=LAYERS, heads=HEADS)
    model = SequenceModel(settings, D, D).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4)
    mean = USERS * len(histories.vectors) / histories.n_histories
    sampler = Sampler(corpus, 256, round(mean), 0, 0)
    done = 0

    def run() -> int:
        nonlocal done
        predicted = 0
        for _ in range(steps):
            batch = sampler.batch(done)
            states, _ = model(batch.inputs)
            queries = model.project(states[batch.queries])
            _update(optimizer, model, queries, corpus.items[batch.key_rows[batch.positives]])
            predicted += len(queries)
            done += 1
        return predicted

    return run


def main() -> None:
    """Print chunks per second of each side, by wall clock and by CPU seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    histories = histories_of(options.users)
    sides = {
        "padded nn.TransformerEncoder": padded_steps(histories, options.steps),
        "packed, window attention": packed_steps(histories, options.steps, "attention", 256),
        "packed, recurrence": packed_steps(histories, options.steps, "recurrence", 256),
    }
    best = dict.fromkeys(sides, (0.0, 0.0))
    for number in range(options.rounds + 1):
        for name, side in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            predicted = side()
            wall, cpu = predicted / (time.perf_counter() - wall), predicted / (time.process_time() - cpu)
            if number:  # the first round warms up
                best[name] = max(best[name][0], wall), max(best[name][1], cpu)
    base = best["padded nn.TransformerEncoder"]
    for name, (wall, cpu) in best.items():
        print(
            f"{name:<29}{wall:>9,.0f} chunks/s, {wall / base[0]:.1f} times by wall, {cpu / base[1]:.1f} by CPU",
            flush=True,
        )


if __name__ == "__main__":
    main()
