"""Quick forms of F7 and F8: the benchmarks' own steps on a few made-up people, with their controls."""

import numpy as np
import polars as pl

from benchmarks.inversion import NAMES, name_auc, named
from benchmarks.membership import OVERFITTED, made_up, trained, user_losses
from user_embeddings_dagster.conversations.chunks import build_chunks
from user_embeddings_dagster.evaluation.baselines import DECAY, Predictions, decayed_mean
from user_embeddings_dagster.evaluation.leakage.audit import audit

TURNS = (
    ("SUBJECT", "hi <P1>, did the seeds come up yet?"),
    ("<P1>", "not one, SUBJECT's tomatoes are ahead of mine, ask <P2>"),
    ("SUBJECT", "then water them in the evening, not at noon"),
)


def chunks(n: int) -> pl.DataFrame:
    return pl.DataFrame({"speakers": [[s for s, _ in TURNS]] * n, "turns": [[t for _, t in TURNS]] * n})


def test_masked_texts_are_the_same_whatever_the_names():
    """F8: from equal texts no probe can tell the names; the unmasked ones differ."""
    masked, unmasked = [], []
    for seed in (0, 1):
        messages, participants, _, texts = named(chunks(24), seed)
        masked.append(build_chunks(messages, participants).chunks.sort("thread_id")["text"].to_list())
        unmasked.append(texts)
    assert len(masked[0]) == 24
    assert masked[0] == masked[1]
    assert unmasked[0] != unmasked[1]
    for name in (*NAMES["SUBJECT"], *NAMES["<P1>"]):
        assert name not in "".join(masked[0])
        assert name in "".join(unmasked[0])


def test_the_probe_finds_a_name_that_is_in_the_vector_and_no_other():
    rng = np.random.default_rng(0)
    names, vectors = rng.integers(2, size=400), rng.normal(size=(400, 32))
    blind = name_auc(vectors, names, seed=0)
    told = name_auc(vectors + 2 * names[:, None] * np.eye(32)[0], names, seed=0)
    assert blind.low is not None
    assert blind.low < 0.55
    assert told.low is not None
    assert told.low > 0.8


def test_an_overfitted_encoder_names_its_users_and_an_untrained_one_nobody(monkeypatch):
    """F7: one real training, audited over fair coins."""
    monkeypatch.setenv("USER_EMBEDDINGS_TORCH_THREADS", "1")
    people = made_up(48)
    coins = np.random.default_rng(0).random(48) < 0.5
    nobody = np.zeros(48, dtype=bool)
    settings = {**OVERFITTED, "dimension": 32, "steps": 60, "seed": 0}
    losses = user_losses(people, trained(people, coins, nobody, settings)(people))
    told = audit(losses[coins], losses[~coins])
    assert told.auc.value is not None
    assert told.auc.value > 0.95
    assert told.epsilon_lower > 0
    frozen = Predictions(decayed_mean(people, DECAY), people.vectors)
    nothing = user_losses(people, frozen)
    assert audit(nothing[coins], nothing[~coins]).epsilon_lower == 0.0
