"""What the masking finds of identifiers, beside Presidio's patterns on the same texts (the control).

    python -m benchmarks.masking_recall [--presidio PYTHON] [--labelled FOLDER] [--per-kind 64]

Our own labelled messages (`evaluation.own_messages`), then the structured entities of public sets. An identifier is
found if every character of it is masked, as whatever kind. PYTHON as in `benchmarks.masking`. Presidio's patterns do
not know most of the kinds: its column shows that the texts do not give the answer away.
"""

import argparse
import json
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.masking import PRESIDIO
from user_embeddings_dagster.evaluation.masking import KINDS, read_labelled
from user_embeddings_dagster.evaluation.own_messages import own_messages
from user_embeddings_dagster.evaluation.pii import LabelledText
from user_embeddings_dagster.privacy.pii import IDENTIFIERS, PEOPLE, locate_kinds

SPANS = (
    PRESIDIO.partition("for line in sys.stdin")[0]
    + """
for line in sys.stdin:
    found = [[[r.start, r.end] for r in engine.analyze(text, "en")] for text in json.loads(line)]
    print(json.dumps(found), flush=True)
"""
)


def found_whole(texts: Sequence[LabelledText], spans: Sequence[Sequence[Any]]) -> tuple[Counter, Counter]:
    """By entity: labels all of whose characters are in `spans` (start, end, …), and labels."""
    whole: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    for text, own in zip(texts, spans, strict=True):
        masked = {place for start, end, *_ in own for place in range(start, end)}
        for start, end, entity in text.spans:
            labels[entity] += 1
            whole[entity] += masked.issuperset(range(start, end))
    return whole, labels


def theirs(texts: Sequence[str], interpreter: Path) -> list[list[list[int]]]:
    """Start and end of what Presidio's patterns find in each text."""
    asked = json.dumps(list(texts)) + "\n"
    done = subprocess.run([interpreter, "-c", SPANS], input=asked, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(name: str, texts: Sequence[LabelledText], interpreter: Path | None) -> None:
    """Print the share of each entity's labels that each side masks whole."""
    lines = [text.text for text in texts]
    whole, labels = found_whole(texts, locate_kinds(pl.Series(lines), (*IDENTIFIERS, *PEOPLE)))
    other = found_whole(texts, theirs(lines, interpreter))[0] if interpreter else None
    print(f"{name}: labels found whole")
    for entity in sorted(labels):
        presidio = f"{other[entity] / labels[entity]:10.3f}" if other is not None else "   not run"
        print(f"  {entity:34} {labels[entity]:6,} {whole[entity] / labels[entity]:8.3f} {presidio}")


def main() -> None:
    """Both sides, set by set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presidio", type=Path)
    parser.add_argument("--labelled", type=Path)
    parser.add_argument("--per-kind", type=int, default=64)
    options = parser.parse_args()
    print(f"{'':36} labels     ours   Presidio")
    compare("own messages", own_messages(options.per_kind), options.presidio)
    for name, texts in (read_labelled(options.labelled) if options.labelled else {}).items():
        scored = [
            LabelledText(text.text, tuple(span for span in text.spans if span[2] in KINDS), text.group)
            for text in texts
        ]
        compare(name, scored, options.presidio)


if __name__ == "__main__":
    main()
