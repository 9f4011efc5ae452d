"""F1, measured: plant, run the graph with each model, scan everything. See the package.

python -m benchmarks.leaks                 # 64 kinds and 5 of names, 50 canaries each in every class of fields
python -m benchmarks.leaks --unmasked      # the control: masking off
python -m benchmarks.leaks --each 2 --formats reddit_dump telegram_chat
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.leaks import lineage
from benchmarks.leaks.exports import FORMATS, write_exports
from benchmarks.leaks.planting import PEOPLE
from benchmarks.leaks.stores import LAWFUL, Auditor, Findings

MODES = ("extractive", "echo", "obey")


def main() -> int:
    """Print the tables; returns 1 if a canary was where it may not be, or the control did not see it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep everything here")
    parser.add_argument("--each", type=int, default=50, help="canaries of each kind in each class of fields")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS))
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--prepare-only", action="store_true", help="no training and no evaluation")
    parser.add_argument("--unmasked", action="store_true", help="the control: masking off, no training")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="leaks-") as made:
        root = options.folder or Path(made)
        if options.folder and any(root.glob("*")):
            shutil.rmtree(root)
        clean = measure(root, options)
    return 0 if clean else 1


def measure(root: Path, options: argparse.Namespace) -> bool:
    """Plant, run, scan; whether all is as it must be."""
    sources = write_exports(root / "data" / "landing", options.each, formats=options.formats)
    auditor, started = Auditor(sources), time.monotonic()
    planted, seen = auditor.planted, auditor.scan(root)
    found = Counter({key[1:]: n for key, n in seen.whole.items()})
    kinds = len({kind for *_, kind in planted})
    print(f"planted {planted.total():,} canaries of {kinds} kinds in {len(sources)} formats")
    print(f"raw input: {found.total():,} found ({time.monotonic() - started:.0f} s)")
    missed = planted - found
    for key, n in sorted(missed.items()):
        print(f"  not found in the raw input: {n} {' / '.join(key)}")
    clean = not missed
    flags = ["--prepare-only"] if options.prepare_only or options.unmasked else []
    flags += ["--unmasked"] if options.unmasked else []
    for mode in options.modes:
        begun = time.monotonic()
        failed = lineage.run(root, mode, *flags, *(["--compute-logs"] if mode == "extractive" else []))
        findings = auditor.scan(root)
        print(f"\n{mode}: graph and scan in {time.monotonic() - begun:.0f} s")
        clean &= report(findings, planted) and not failed
        for job in failed:
            print(job)
    if options.unmasked:
        print("this was the control: it must leak")
    return not clean if options.unmasked else clean


def report(findings: Findings, planted: Counter[tuple[str, str, str]]) -> bool:
    """Print hits by store and format, unlawful ones by kind; whether there are none."""
    unlawful = findings.unlawful()
    formats = sorted({format for format, *_ in planted})
    print(f"{'store':28}{'files':>7}{'MB':>7}" + "".join(f"{name:>21}" for name in formats))
    for store in sorted(findings.files):
        cells = []
        for format in formats:
            hits = [n for (where, which, *_), n in findings.whole.items() if (where, which) == (store, format)]
            wrong = [n for (where, which, *_), n in unlawful.items() if (where, which) == (store, format)]
            cells.append(f"{sum(hits)} ({sum(wrong)} wrong)" if hits or wrong else "0")
        name = f"{store} *" if store in LAWFUL else store
        print(
            f"{name:28}{findings.files[store]:7}{findings.bytes[store] / 1e6:7.1f}" + "".join(f"{c:>21}" for c in cells)
        )
    print("* holds raw text, names or file names lawfully; hits are distinct canaries")
    read = Counter({of: 0 for of in ("spoken", PEOPLE)})
    for (store, _, of, _), n in findings.whole.items():
        if store == "tables/messages" and of in read:
            read[of] += n
    for of, n in read.items():
        print(f"read into messages: {n:,} of {sum(m for (_, c, _), m in planted.items() if c == of):,} {of}")
    for (store, format, of, kind), n in sorted(unlawful.items()):
        print(f"LEAK {store}: {n} {kind} of {format}, {of}")
    for name in findings.undecoded:
        print(f"UNDECODED {name}")
    print(f"{unlawful.total()} leaks, {len(findings.undecoded)} files not decoded")
    return not unlawful and not findings.undecoded


if __name__ == "__main__":
    sys.exit(main())
