"""Time per message of the masking, beside the patterns of Presidio on the same texts in the same run.

    python -m benchmarks.masking [--presidio PYTHON] [--labelled FOLDER] [--rounds 5]

PYTHON is an interpreter of an environment that has presidio-analyzer (it is none of ours: `python -m venv P &&
P/bin/pip install presidio-analyzer`); without one, this says so and gives no ratio. Presidio runs its own pattern
recognisers for English without any NLP model or download: through its `AnalyzerEngine`, as people run it, and the
bare recognisers one after another. They look for no names of persons and no handles: "patterns" is what compares.
Each set of texts is repeated to `MESSAGES` for us, because a call compiles all patterns once and a DataDAO is masked
in one call; Presidio, which takes texts one by one, gets the set once. Both take turns on one thread, round by round;
processor seconds, and of the ratios of the rounds the median with the least and the greatest.
Then: time per message of known names, at 10 and 100 times as many of them.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ["POLARS_MAX_THREADS"] = "1"  # read when Polars is imported

import polars as pl

from user_embeddings_dagster.evaluation.masking import read_labelled
from user_embeddings_dagster.evaluation.own_messages import BENIGN, own_messages
from user_embeddings_dagster.privacy.masking import NAME_MARK, ThreadNames
from user_embeddings_dagster.privacy.normalise import canonical
from user_embeddings_dagster.privacy.patterns import HANDLES
from user_embeddings_dagster.privacy.pii import IDENTIFIERS, PEOPLE, mark_kinds

PRESIDIO = r"""
import json, logging, sys, time
logging.disable(logging.CRITICAL)
import tldextract
tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
from presidio_analyzer import AnalyzerEngine, PatternRecognizer, RecognizerRegistry
from presidio_analyzer.nlp_engine import NoOpNlpEngine
from presidio_analyzer.predefined_recognizers import PhoneRecognizer
registry = RecognizerRegistry(supported_languages=["en"])
registry.load_predefined_recognizers(languages=["en"])
own = [r for r in registry.recognizers if isinstance(r, (PatternRecognizer, PhoneRecognizer))]
registry.recognizers = own
no_model = NoOpNlpEngine([{"lang_code": "en", "model_name": "none"}])
engine = AnalyzerEngine(registry, no_model, supported_languages=["en"])
sides = {
    "AnalyzerEngine": lambda text: engine.analyze(text, "en"),
    "bare recognisers": lambda text: [r.analyze(text, r.supported_entities, None) for r in own],
}
print(json.dumps(len(own)), flush=True)
for line in sys.stdin:
    texts = json.loads(line)
    taken = {}
    for name, side in sides.items():
        started = time.process_time()
        for text in texts:
            side(text)
        taken[name] = time.process_time() - started
    print(json.dumps(taken), flush=True)
"""
MESSAGES = 40_000


SIDES = {"patterns": IDENTIFIERS, "and handles": (*IDENTIFIERS, *HANDLES), "and persons": (*IDENTIFIERS, *PEOPLE)}
Theirs = Callable[[list[str]], dict[str, float]]
"""Processor seconds of each way to run Presidio."""


def taken(work: Callable[[], object]) -> float:
    """Processor seconds of `work`."""
    started = time.process_time()
    work()
    return time.process_time() - started


@contextmanager
def presidio(interpreter: Path | None) -> Iterator[Theirs | None]:
    """Presidio in a process of its own that waits for texts; None without an interpreter."""
    if interpreter is None:
        print("Presidio is not here (--presidio PYTHON): no ratio")
        yield None
        return
    with subprocess.Popen(
        [interpreter, "-c", PRESIDIO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        if run.stdin is None or run.stdout is None or not (recognisers := run.stdout.readline()):
            raise SystemExit("Presidio did not start")
        print(f"Presidio: {int(recognisers)} pattern recognisers")
        to, answers = run.stdin, run.stdout

        def ask(texts: list[str]) -> dict[str, float]:
            to.write(json.dumps(texts) + "\n")
            to.flush()
            return json.loads(answers.readline())

        yield ask
        to.close()


def beside_presidio(texts: list[str], rounds: int, theirs: Theirs | None) -> None:
    """Print microseconds per message of both sides, and the ratios."""
    series = pl.Series(texts * -(-MESSAGES // len(texts)))
    ours: dict[str, list[float]] = {name: [] for name in SIDES}
    other: dict[str, list[float]] = {}
    mark_kinds(canonical(series), SIDES["and persons"])  # lists are read once
    for _ in range(rounds):
        for name, kinds in SIDES.items():
            seconds = taken(lambda kinds=kinds: mark_kinds(canonical(series), kinds))
            ours[name].append(seconds / len(series) * 1e6)
        for name, seconds in (theirs(texts) if theirs else {}).items():
            other.setdefault(name, []).append(seconds / len(texts) * 1e6)
    for name, mine in ours.items():
        print(f"  ours, {name}: {statistics.median(mine):,.1f} µs a message")
    for name, times in other.items():
        print(f"  Presidio, {name}: {statistics.median(times):,.1f} µs a message")
        for own, mine in ours.items():
            ratios = sorted(their / our for their, our in zip(times, mine, strict=True))
            print(f"    = {statistics.median(ratios):.0f} × {own} ({ratios[0]:.0f} to {ratios[-1]:.0f})")


def names_by_size(rounds: int) -> None:
    """Print time per message of known names at 100, 1,000 and 10,000 names of a thread."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(4, 9))) for _ in range(30_000)]
    texts = [" ".join(draw.choices(words, k=12)) for _ in range(5_000)]
    for size in (100, 1_000, 10_000):
        names = ThreadNames((f"p{i}", word, "handle") for i, word in enumerate(words[:size]))
        seconds = min(taken(lambda names=names: [names.mask(text) for text in texts]) for _ in range(rounds))
        marks = sum(len(NAME_MARK.findall(names.mask(text))) for text in texts)
        print(f"  {size:>6,} names: {seconds / len(texts) * 1e6:6.1f} µs a message of 12 words, {marks:,} names masked")


def main() -> None:
    """Every set of texts, then the names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presidio", type=Path)
    parser.add_argument("--labelled", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sets = {"own messages, 1 in 10 with something to mask": _chat()}
    if options.labelled:
        sets |= {name: [text.text for text in texts] for name, texts in read_labelled(options.labelled).items()}
    with presidio(options.presidio) as theirs:
        for name, texts in sets.items():
            print(f"{name}: {len(texts):,} texts, {sum(map(len, texts)) / len(texts):.0f} characters each", flush=True)
            beside_presidio(texts, options.rounds, theirs)
    print("known names")
    names_by_size(options.rounds)


def _chat() -> list[str]:
    """Our labelled messages among nine times as many benign ones."""
    labelled = [text.text for text in own_messages(4) if text.spans]
    draw = random.Random(0)
    return [line for text in labelled for line in (*draw.sample(BENIGN, 9), text)]


if __name__ == "__main__":
    main()
