"""Time per message of the masking, beside the patterns of Presidio on the same texts in the same run.

    python -m benchmarks.masking [--presidio PYTHON] [--labelled FOLDER] [--rounds 3]

PYTHON is an interpreter of an environment that has presidio-analyzer (it is none of ours: `python -m venv P &&
P/bin/pip install presidio-analyzer`); without one, this says so and gives no ratio. Presidio runs its own pattern
recognisers for English without any NLP model or download: through its `AnalyzerEngine`, as people run it, and the
bare recognisers one after another. Each set of texts is repeated to `MESSAGES` for us, because a call compiles all
patterns once and a DataDAO is masked in one call; Presidio, which takes texts one by one, gets the set once.
Then: time per message of known names, at 10 and 100 times as many of them. CPU seconds, the best round.
"""

import argparse
import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from user_embeddings_dagster.evaluation.masking import read_labelled
from user_embeddings_dagster.evaluation.own_messages import BENIGN, own_messages
from user_embeddings_dagster.privacy.masking import NAME_MARK, ThreadNames
from user_embeddings_dagster.privacy.normalise import canonical
from user_embeddings_dagster.privacy.pii import IDENTIFIERS, PEOPLE, mark_kinds

PRESIDIO = r"""
import json, logging, sys, time
logging.disable(logging.CRITICAL)
import tldextract
tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
from presidio_analyzer import AnalyzerEngine, PatternRecognizer, RecognizerRegistry
from presidio_analyzer.nlp_engine import NoOpNlpEngine
from presidio_analyzer.predefined_recognizers import PhoneRecognizer
texts, rounds = json.load(sys.stdin)
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
best = dict.fromkeys(sides, float("inf"))
for _ in range(rounds):
    for name, side in sides.items():
        started = time.process_time()
        for text in texts:
            side(text)
        best[name] = min(best[name], time.process_time() - started)
print(json.dumps({"seconds": best, "recognisers": len(own)}))
"""
MESSAGES = 40_000


def best(work: Callable[[], object], rounds: int) -> float:
    """Least CPU seconds of the rounds."""
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return min(taken)


def beside_presidio(texts: list[str], rounds: int, interpreter: Path | None) -> None:
    """Print microseconds per message of both sides, and the ratios."""
    series = pl.Series(texts * -(-MESSAGES // len(texts)))
    sides = {"patterns": IDENTIFIERS, "with handles and persons": (*IDENTIFIERS, *PEOPLE)}
    ours = {}
    for name, kinds in sides.items():
        seconds = best(lambda kinds=kinds: mark_kinds(canonical(series), kinds), rounds)
        ours[name] = seconds / len(series) * 1e6
        print(f"  ours, {name}: {ours[name]:,.1f} µs a message")
    if interpreter is None:
        print("  Presidio is not here (--presidio PYTHON): no ratio")
        return
    done = subprocess.run(
        [interpreter, "-c", PRESIDIO], input=json.dumps([texts, max(1, rounds // 2)]), capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"Presidio did not run:\n{done.stderr[-2000:]}")
    answer = json.loads(done.stdout)
    for theirs, seconds in answer["seconds"].items():
        time_each = seconds / len(texts) * 1e6
        ratios = ", ".join(f"{time_each / mine:.0f} × {name}" for name, mine in ours.items())
        print(f"  Presidio's {answer['recognisers']} patterns, {theirs}: {time_each:,.1f} µs a message = {ratios}")


def names_by_size(rounds: int) -> None:
    """Print time per message of known names at 100, 1,000 and 10,000 names of a thread."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(4, 9))) for _ in range(30_000)]
    texts = [" ".join(draw.choices(words, k=12)) for _ in range(5_000)]
    for size in (100, 1_000, 10_000):
        names = ThreadNames((f"p{i}", word, "handle") for i, word in enumerate(words[:size]))
        seconds = best(lambda names=names: [names.mask(text) for text in texts], rounds)
        marks = sum(len(NAME_MARK.findall(names.mask(text))) for text in texts)
        print(f"  {size:>6,} names: {seconds / len(texts) * 1e6:6.1f} µs a message of 12 words, {marks:,} names masked")


def main() -> None:
    """Every set of texts, then the names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presidio", type=Path)
    parser.add_argument("--labelled", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sets = {"own messages, 1 in 10 with something to mask": _chat()}
    if options.labelled:
        sets |= {name: [text.text for text in texts] for name, texts in read_labelled(options.labelled).items()}
    for name, texts in sets.items():
        print(f"{name}: {len(texts):,} texts, {sum(map(len, texts)) / len(texts):.0f} characters each")
        beside_presidio(texts, options.rounds, options.presidio)
    print("known names")
    names_by_size(options.rounds)


def _chat() -> list[str]:
    """Our labelled messages among nine times as many benign ones."""
    labelled = [text.text for text in own_messages(4) if text.spans]
    draw = random.Random(0)
    return [line for text in labelled for line in (*draw.sample(BENIGN, 9), text)]


if __name__ == "__main__":
    main()
