"""Can a probe tell from a vector whose name was masked in its text (F8)?

    python -m benchmarks.inversion [DATA] [--chunks 2000]

Takes masked chunks of DATA (a data root; without one, of sample exports), gives SUBJECT and the first other person a
name drawn by the fall of a coin from two of their own, so that the name says nothing of the content, writes the
conversations out with the names, and sends them through the pipeline's own masking again. A linear probe on the frozen
encoder's vectors is then asked which of their two names each has, in texts it was not fitted on. Masked: area under
the curve .5 ± .05. Positive control: the same texts unmasked must give more than .9. Names and unmasked texts live in
memory alone. Returns 1 if either fails.
"""

import argparse
import re
import sys
import tempfile
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from user_embeddings_dagster.conversations.chunks import build_chunks
from user_embeddings_dagster.evaluation.attributes import Attribute
from user_embeddings_dagster.evaluation.bootstrap import Estimate, bootstrap_statistics
from user_embeddings_dagster.evaluation.probes import ProbeModel, ProbeTask, probe, statistic_of
from user_embeddings_dagster.exports.build import build_messages
from user_embeddings_dagster.samples import generate
from user_embeddings_dagster.schema import MASKED_CHUNKS, MESSAGES, PARTICIPANTS
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake

NAMES = {"SUBJECT": ("Marisol", "Dmitri"), "<P1>": ("Anneke", "Tobias")}
SPEAKER = re.compile(r"SUBJECT|<P\d+>")
MASKED_AT_MOST, UNMASKED_AT_LEAST = 0.05, 0.9


def sample_chunks(seed: int) -> pl.DataFrame:
    """Masked chunks of sample exports."""
    key = bytes(32)
    with tempfile.TemporaryDirectory(prefix="inversion-") as folder:
        layout = Layout(Path(folder))
        generate(layout.landing, seed=seed, contributors=20)
        lake, parts = Lake(layout.root), []
        for datadao in ("reddit", "telegram"):
            build_messages(datadao, layout.landing, lake, key, threads=1)
            parts.append(build_chunks(lake.read("messages", datadao), lake.read("participants", datadao)).chunks)
    return pl.concat(parts)


def named(chunks: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, np.ndarray], list[str]]:
    """MESSAGES and PARTICIPANTS of the chunks as threads of their own, SUBJECT and <P1> with a random name of `NAMES`;
    which of the two each has [n_chunks]; and the texts with the names in place."""
    rng = np.random.default_rng(seed)
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    messages, participants, texts = [], [], []
    chosen = {label: rng.integers(2, size=chunks.height) for label in NAMES}
    for number, (speakers, turns) in enumerate(chunks.select("speakers", "turns").iter_rows()):
        thread = f"{number:032x}"
        name_of = {p: f"guest{p[2:-1]}" for line in (*speakers, *turns) for p in SPEAKER.findall(line)}
        name_of |= {label: NAMES[label][chosen[label][number]] for label in NAMES}
        said = [SPEAKER.sub(lambda m, n=name_of: n[m.group()], turn) for turn in turns]
        texts.append("\n".join(f"{name_of.get(s, s)}: {t}" for s, t in zip(speakers, said, strict=True)))
        for place, (speaker, text) in enumerate(zip(speakers, said, strict=True)):
            known = speaker in name_of
            messages.append(
                {
                    "message_id": f"{number:024x}{place:08x}", "platform": "telegram",
                    "thread_id": thread, "thread_shape": "linear", "author_id": _person(number, speaker),
                    "role": "user" if known else "assistant", "is_subject": speaker == "SUBJECT",
                    "created_at": begin + timedelta(seconds=30 * place), "text": text,
                    "raw_sha256": "0" * 64, "raw_member": "", "raw_location": place,
                }
            )  # fmt: skip
        participants += [
            {"thread_id": thread, "author_id": _person(number, p), "name": n, "name_kind": "first_name"}
            for p, n in name_of.items()
        ]
    return _framed(messages, MESSAGES.schema), _framed(participants, PARTICIPANTS.schema), chosen, texts


def _person(thread: int, label: str) -> str:
    return f"{thread:024x}{zlib.crc32(label.encode()):08x}"


def _framed(rows: list[dict[str, object]], schema: pl.Schema) -> pl.DataFrame:
    rows = [{"datadao": "probe", **row} for row in rows]
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)


def name_auc(vectors: np.ndarray, names: np.ndarray, seed: int) -> Estimate:
    """AUC of a linear probe for which of two names it is [n], fitted on half of the vectors [n, d]; .5 is chance."""
    order = np.random.default_rng(seed).permutation(len(vectors))
    ends = (4 * len(order) // 10, 5 * len(order) // 10)
    rows = dict(zip(("train", "valid", "test"), np.split(order, ends), strict=True))
    tested = Attribute("name", names, ("first", "second"))
    task = ProbeTask({split: tested.of(part) for split, part in rows.items()}, rows["test"])
    predicted = probe(ProbeModel({split: vectors[part] for split, part in rows.items()}, ""), task)
    return bootstrap_statistics(statistic_of(task.attributes["test"], predicted), rows["test"], seed=seed)[1]


def measured(chunks: pl.DataFrame, seed: int = 0) -> dict[tuple[str, str], Estimate]:
    """AUC by (text, whose name): "masked" or "unmasked", SUBJECT or <P1>."""
    from user_embeddings_dagster.embedding.text_encoder import TextEncoder

    messages, participants, names, unmasked = named(chunks, seed)
    masked = build_chunks(messages, participants).chunks.sort("thread_id").unique("thread_id", keep="first")
    masked = masked.sort("thread_id")
    kept = [int(thread, 16) for thread in masked["thread_id"]]
    encoder = TextEncoder()
    vectors = {
        "masked": encoder.encode(masked["text"].to_list()),
        "unmasked": encoder.encode([unmasked[n] for n in kept]),
    }
    asked = [(kind, label) for label in NAMES for kind in vectors]
    return {(kind, label): name_auc(vectors[kind], names[label][kept], seed) for kind, label in asked}


def holds(found: dict[tuple[str, str], Estimate]) -> bool:
    """Masked texts give chance, unmasked ones the name."""
    masked = [abs((e.value or 0.0) - 0.5) <= MASKED_AT_MOST for (kind, _), e in found.items() if kind == "masked"]
    unmasked = [(e.value or 0.0) > UNMASKED_AT_LEAST for (kind, _), e in found.items() if kind == "unmasked"]
    return all(masked) and all(unmasked)


def main() -> int:
    """Print the four areas; 1 if the masked ones are not at chance or the control is not found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--chunks", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.data:
        lake = Lake(options.data)
        names = lake.partitions(MASKED_CHUNKS.name)
        chunks = pl.concat([lake.read(MASKED_CHUNKS.name, name) for name in names]).unique("chunk_id").sort("chunk_id")
    else:
        chunks = sample_chunks(options.seed)
    chunks = chunks.filter(pl.col("speakers").list.contains("<P1>"))
    chunks = chunks.sample(min(options.chunks, chunks.height), seed=options.seed).sort("chunk_id")
    found = measured(chunks, options.seed)
    print(f"{chunks.height} chunks, two names each; area under the curve of a linear probe for the name (chance: .5)")
    for (kind, label), estimate in found.items():
        interval = "" if estimate.low is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
        print(f"  {kind:<9}{label:<9}{estimate.value:.3f}{interval} on {estimate.n} texts")
    passed = holds(found)
    print("holds" if passed else "FAILS: masked must be within .5 ± .05, unmasked above .9")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
