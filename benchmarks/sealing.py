"""What sealing costs: ingestion of the same exports in clear, sealed on the way, and from sealed files (C19).

    python -m benchmarks.sealing [--megabytes 100] [--rounds 3]

Each round runs the whole ingestion (`build_messages`: hash, read, merge, commit) of a Telegram chat, a zip of ChatGPT
conversations and a Reddit dump in the three ways, in turn. Times are of the processor (user and system), which other
work on the machine does not stretch, and of the clock; the least of the rounds counts. Prints what sealing adds, as a
share of the ingestion in clear, what reading sealed files adds, and how fast the cipher and the hash are alone.
"""

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks.ingestion_json import generate
from benchmarks.reddit_dump import write_dump
from user_embeddings_dagster.exports.build import build_messages
from user_embeddings_dagster.exports.landing import raw_paths
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.sealed_format import FRAME, is_sealed
from user_embeddings_dagster.storage.lake import Lake

KEY = bytes(range(32))
AIM = 0.10  # of the time of ingestion


def main() -> int:
    """Measure and print; returns 1 if sealing costs more than AIM of the ingestion, or changed a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100, help="of each export, in clear and unpacked")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sealing-") as folder:
        root = Path(folder)
        exports = _exports(root / "exports", options.megabytes)
        failed = sum([_measure(name, path, root / name, options.rounds) for name, path in exports.items()])
    _speeds()
    return 1 if failed else 0


def _exports(folder: Path, megabytes: int) -> dict[str, Path]:
    folder.mkdir()
    generate("telegram", "pretty", megabytes, folder / "result.json")
    generate("chatgpt", "compact", megabytes, folder / "conversations.json")
    with zipfile.ZipFile(folder / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "conversations.json", "conversations.json")
    write_dump(folder / "RC_2018-10.zst", "comments-2018", megabytes * 700, window_log=23)
    return {"telegram": folder / "result.json", "chatgpt": folder / "export.zip", "reddit": folder / "RC_2018-10.zst"}


def _measure(name: str, export: Path, root: Path, rounds: int) -> bool:
    """The three ways, `rounds` times; whether sealing missed its aim."""
    landing = root / "landing"
    (landing / name).mkdir(parents=True)
    best: dict[str, tuple[float, float]] = defaultdict(lambda: (float("inf"), float("inf")))
    hashes = set()
    with ContributorKeys(root / "keys.sqlite", KEY) as keys:
        for _ in range(rounds):
            for path in raw_paths(landing / name):
                path.unlink()
            shutil.copy2(export, landing / name / export.name)
            for way, seal in (("clear", False), ("sealing", True), ("sealed", False)):
                lake = Lake(root / "lake")
                shutil.rmtree(lake.root, ignore_errors=True)
                cpu, clock, result = _timed(
                    lambda seal=seal, lake=lake: build_messages(name, landing, lake, KEY, keys=keys, seal=seal)
                )
                hashes.add(tuple(commit.content_hash for commit in result.commits.values()))
                best[way] = min(best[way][0], cpu), min(best[way][1], clock)
            assert all(map(is_sealed, raw_paths(landing / name)))
    clear, sealing, sealed = (best[way] for way in ("clear", "sealing", "sealed"))
    size = export.stat().st_size / 1e6
    shares = [f"{(way[unit] - clear[unit]) / clear[unit]:+7.1%}" for way in (sealing, sealed) for unit in (0, 1)]
    print(
        f"{name:9} {size:6.0f} MB  in clear {clear[0]:6.2f} s processor, {clear[1]:6.2f} s clock   "
        f"sealing adds {shares[0]} processor, {shares[1]} clock   reading sealed {shares[2]}, {shares[3]}   "
        f"tables {'the same' if len(hashes) == 1 else 'DIFFER'}",
        flush=True,
    )
    return len(hashes) > 1 or sealing[0] > (1 + AIM) * clear[0]


def _timed(call: Callable):
    began, clock = os.times(), time.perf_counter()
    result = call()
    ended = os.times()
    return ended.user - began.user + ended.system - began.system, time.perf_counter() - clock, result


def _speeds() -> None:
    cipher, block, nonce = AESGCM(KEY), os.urandom(FRAME), bytes(12)
    sealed, clear = cipher.encrypt(nonce, block, b""), bytearray(FRAME)
    rates = {
        "encrypt": lambda: cipher.encrypt(nonce, block, b""),
        "decrypt": lambda: cipher.decrypt_into(nonce, sealed, b"", clear),
        "SHA-256": lambda: hashlib.sha256(block).digest(),
    }
    for name, call in rates.items():
        cpu, _, _ = _timed(lambda call=call: [call() for _ in range(300)])
        print(f"{name}: {300 * FRAME / 1e6 / max(cpu, 1e-9):,.0f} MB a second of one processor")


if __name__ == "__main__":
    sys.exit(main())
