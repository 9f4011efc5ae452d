"""Telegram and ChatGPT JSON of 300 MB: the readers against `json.load` and a Python loop, side by side.

Both sides run in one go on the same generated file, each in a process of its own, and build the same columns;
their rows are compared by a hash. Shown: rows per second, ratio, peak resident memory.

    python benchmarks/ingestion_json.py [--megabytes 300] [--repeat 1] [--format telegram] [--layout compact]
"""

import argparse
import hashlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

WORDS = (
    "the compiler keeps a table of every symbol and so we moved to an arena allocator which was faster than malloc in "
    "our case but the tests on windows still hang at the second join I would try printf first — naïve, перевод, 日本語 🙂"
).split()
COMPARED = ("native_thread", "native_id", "native_parent", "native_author", "role", "created_at", "text", "media_kind")
LAYOUTS: dict[str, dict[str, Any]] = {
    "pretty": {"indent": 1},
    "compact": {"separators": (",", ":")},
    "default": {},
}


def sentence(rng: random.Random) -> str:
    """3 to 40 words, now and then with quotes, braces and line breaks."""
    text = " ".join(rng.choices(WORDS, k=rng.randint(3, 40)))
    return f'{text}\n"{{not: json}},{{" \\ end' if rng.random() < 0.05 else text


def telegram_chat(rng: random.Random, messages: int) -> dict[str, Any]:
    """A public group in the shape of Telegram Desktop 4 and later."""
    found = []
    for number in range(1, messages + 1):
        author = rng.randint(1, 3000)
        text = sentence(rng)
        at = 1_500_000_000 + number * 30
        message: dict[str, Any] = {
            "id": number, "type": "message", "date": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)),
            "date_unixtime": str(at), "from": f"Person {author}", "from_id": f"user{author}",
        }  # fmt: skip
        if rng.random() < 0.25:
            message["reply_to_message_id"] = max(1, number - rng.randint(1, 9))
        if rng.random() < 0.05:
            message |= {"photo": "photos/photo.jpg", "width": 800, "height": 600}
        entities = [{"type": "plain", "text": text}]
        if rng.random() < 0.1:
            entities.append({"type": "link", "text": "https://example.org/a"})
        message["text"] = text if len(entities) == 1 else [text, entities[1]]
        found.append(message | {"text_entities": entities})
    return {"name": "group", "type": "public_supergroup", "id": 12345, "messages": found}


def chatgpt_conversations(rng: random.Random, messages: int) -> list[dict[str, Any]]:
    """Conversations in the shape of the export zip, with system messages, metadata and regenerated answers."""
    conversations, written = [], 0
    while written < messages:
        name, at, mapping, parent = str(rng.getrandbits(64)), 1.7e9 + written * 60.5, {}, None
        for turn in range(rng.randint(2, 30)):
            node = f"{rng.getrandbits(128):032x}"
            role = "system" if parent is None else ("user", "assistant")[turn % 2]
            text = "" if role == "system" else "\n\n".join(sentence(rng) for _ in range(1 if role == "user" else 8))
            metadata = {"message_type": "next", "model_slug": "gpt", "request_id": node, "citations": [],
                        "content_references": [{"matched_text": " ", "start_idx": 0, "items": [{"title": "t", "url": "u"}]}]}  # fmt: skip
            message = {
                "id": node, "author": {"role": role, "name": None, "metadata": {}}, "create_time": at + turn,
                "update_time": None, "content": {"content_type": "text", "parts": [text]}, "status": "ok",
                "end_turn": True, "weight": 1.0, "metadata": metadata, "recipient": "all", "channel": None,
            }  # fmt: skip
            mapping[node] = {"id": node, "message": message, "parent": parent, "children": []}
            if parent:
                mapping[parent]["children"].append(node)
            if not (role == "assistant" and rng.random() < 0.1):  # else a sibling will take its place
                parent = node
            written += 1
        conversations.append({"title": "A title", "create_time": at, "update_time": at, "mapping": mapping,
                              "moderation_results": [], "current_node": parent, "plugin_ids": None,
                              "conversation_id": name, "is_archived": False, "safe_urls": [], "id": name})  # fmt: skip
    return conversations


def generate(kind: str, layout: str, megabytes: int, path: Path) -> None:
    """Write a file of about `megabytes` MB; the same arguments give the same bytes."""
    make = telegram_chat if kind == "telegram" else chatgpt_conversations
    piece = len(json.dumps(make(random.Random(0), 2000), ensure_ascii=False, **LAYOUTS[layout]).encode())
    document = make(random.Random(0), 2000 * megabytes * 1_000_000 // piece)
    path.write_text(json.dumps(document, ensure_ascii=False, **LAYOUTS[layout]))


def usual_telegram(path: Path) -> Iterator[tuple]:
    """The rows by json.load and a loop."""
    with path.open() as stream:
        chat = json.load(stream)
    for message in chat["messages"]:
        text = message["text"]
        if isinstance(text, list):
            text = "".join(part if isinstance(part, str) else part["text"] for part in text)
        kind = "photo" if "photo" in message else None
        reply = message.get("reply_to_message_id")
        yield (
            str(chat["id"]), str(message["id"]), None if reply is None else str(reply), message["from_id"], "user",
            int(message["date_unixtime"]) * 1_000_000, f"[{kind}] {text}" if kind else text, kind,
        )  # fmt: skip


def usual_chatgpt(path: Path) -> Iterator[tuple]:
    """The rows by json.load and a loop."""
    with path.open() as stream:
        conversations = json.load(stream)
    for conversation in conversations:
        mapping, at, names = conversation["mapping"], conversation["current_node"], []
        while at:
            names.append(at)
            at = mapping[at]["parent"]
        parent = None
        for name in reversed(names):
            message = mapping[name]["message"]
            role = message["author"]["role"]
            text = "\n".join(part for part in message["content"]["parts"] if part)
            yield (
                conversation["conversation_id"], name, parent, path.name if role == "user" else None, role,
                round(message["create_time"] * 1e6), text, None,
            )  # fmt: skip
            parent = name


def measure(side: str, kind: str, path: Path) -> None:
    """Read the file one way; print seconds, rows, peak memory in MB and a hash of the rows, as JSON."""
    start, cpu = time.perf_counter(), time.process_time()
    if side == "usual":
        rows = list((usual_telegram if kind == "telegram" else usual_chatgpt)(path))
        frames = [pl.DataFrame(rows, schema=[(name, pl.Int64 if name == "created_at" else pl.String) for name in COMPARED],
                               orient="row")]  # fmt: skip
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        height, hashes = frames[0].height, frames
    else:
        from user_embeddings_dagster.exports import chatgpt, telegram
        from user_embeddings_dagster.exports.reader import RawFile

        reader = telegram if kind == "telegram" else chatgpt
        height, seconds, cpu, digest = 0, 0.0, 0.0, hashlib.sha256()
        start, cpu_start = time.perf_counter(), time.process_time()
        for batch in reader.read(RawFile(path, path.name, "0" * 64)):
            seconds += time.perf_counter() - start
            cpu += time.process_time() - cpu_start
            assert not batch.rejected, batch.rejected[:3]
            height += batch.messages.height
            digest.update(digest_of(batch.messages.select(pl.col(COMPARED)).with_columns(pl.col("created_at").to_physical())))
            start, cpu_start = time.perf_counter(), time.process_time()
        hashes = digest
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    if isinstance(hashes, list):
        digest = hashlib.sha256()
        for batch in hashes[0].iter_slices(10_000):
            digest.update(digest_of(batch))
    print(json.dumps({"seconds": seconds, "cpu": cpu, "rows": height, "peak_mb": peak, "hash": digest.hexdigest()}))


def digest_of(frame: pl.DataFrame) -> bytes:
    """Row by row, so that the size of batches does not matter."""
    return b"".join(hashlib.md5(repr(row).encode(), usedforsecurity=False).digest() for row in frame.iter_rows())


def side(name: str, kind: str, path: Path) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--side", name, "--format", kind, "--path", str(path)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(kind: str, layout: str, path: Path, repeat: int) -> None:
    """Print the comparison for one file: the best of `repeat` runs, taken in turns."""
    runs = [(side("usual", kind, path), side("ours", kind, path)) for _ in range(repeat)]
    usual, ours = (min((run[i] for run in runs), key=lambda run: run["seconds"]) for i in (0, 1))
    ratio = usual["seconds"] / ours["seconds"]
    print(f"{kind} {layout}, {path.stat().st_size / 1e6:.0f} MB, {ours['rows']:,} rows, best of {repeat}")
    for name, run in (("json.load + loop", usual), ("reader", ours)):
        speed = run["rows"] / run["seconds"]
        print(f"  {name:<17} {run['seconds']:7.2f} s  {run['cpu']:6.2f} s CPU  {speed:10,.0f} rows/s  peak {run['peak_mb']:6.0f} MB")
    print(f"  ratio {ratio:.1f} (CPU {usual['cpu'] / ours['cpu']:.1f}), rows equal: {usual['hash'] == ours['hash'] and usual['rows'] == ours['rows']}", flush=True)


def main() -> None:
    """Generate, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--format", choices=("telegram", "chatgpt"))
    parser.add_argument("--layout", choices=tuple(LAYOUTS), help="default: as the platform writes it")
    parser.add_argument("--side", choices=("usual", "ours", "generate"), help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side == "generate":
        return generate(options.format, options.layout, options.megabytes, options.path)
    if options.side:
        return measure(options.side, options.format, options.path)
    with tempfile.TemporaryDirectory() as folder:
        for kind, own in (("telegram", "pretty"), ("chatgpt", "default")):
            if options.format in (None, kind):
                layout = options.layout or own
                path = Path(folder) / f"{kind}.json"
                arguments = ["--format", kind, "--layout", layout, "--megabytes", str(options.megabytes)]
                command = [sys.executable, __file__, "--side", "generate", "--path", str(path), *arguments]
                subprocess.run(command, check=True)
                compare(kind, layout, path, options.repeat)
                path.unlink()


if __name__ == "__main__":
    main()
