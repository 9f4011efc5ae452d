"""Telegram and ChatGPT JSON of 300 MB: the readers against `json.load` and a Python loop, side by side.

Both sides run in one go on the same generated file, each in a process of its own, and build the same columns;
their rows are compared by a hash. Shown: rows per second, ratio, peak resident memory.

    python benchmarks/ingestion_json.py [--megabytes 300] [--repeat 3] [--format telegram] [--layout compact]
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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from user_embeddings_dagster.exports import chatgpt, telegram
from user_embeddings_dagster.exports.reader import NAMES_SCHEMA, RawFile
from user_embeddings_dagster.schema import NATIVE_MESSAGES

SHA256 = "0" * 64

ENGLISH = (
    "the compiler keeps a table of every symbol and so we moved to an arena allocator which was faster than malloc in "
    "our case but the tests on windows still hang at the second join I would try printf first"
)
WORDS = ENGLISH.split()
OTHERS = ("naïve", "— well", "перевод на русский", "日本語", "🙂")
LAYOUTS: dict[str, dict[str, Any]] = {
    "pretty": {"indent": 1},
    "compact": {"separators": (",", ":")},
    "default": {},
}


def sentence(rng: random.Random) -> str:
    """3 to 40 words, now and then another script or an emoji, quotes, braces and line breaks."""
    text = " ".join(rng.choices(WORDS, k=rng.randint(3, 40)))
    if rng.random() < 0.2:
        text = f"{text} {rng.choice(OTHERS)}"
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
        if rng.random() < 0.03:
            message |= {"edited": message["date"], "edited_unixtime": str(at + 60)}
        if rng.random() < 0.03:
            message["forwarded_from"] = "A channel"
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
            citation = {"matched_text": " ", "start_idx": 0, "items": [{"title": "t", "url": "u"}]}
            metadata = {"message_type": "next", "request_id": node, "content_references": [citation]}
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


MEDIA = {"voice_message": "voice", "video_message": "video_note", "video_file": "video", "audio_file": "audio",
         "animation": "animation", "sticker": "sticker"}  # fmt: skip


Names = set[tuple[str, str, str, str]]


def usual_telegram(path: Path, names: Names) -> Iterator[dict[str, Any]]:
    """The rows and names by json.load and a loop."""
    with path.open() as stream:
        chat = json.load(stream)
    for index, message in enumerate(chat["messages"]):
        text = message["text"]
        if isinstance(text, list):
            text = "".join(part if isinstance(part, str) else part["text"] for part in text)
        kind = MEDIA.get(message["media_type"], "file") if "media_type" in message else None
        for key in ("photo", "poll", "contact_information", "location_information", "file"):
            if kind is None and key in message:
                kind = key.removesuffix("_information")
        forwarded = "[forwarded]" if "forwarded_from" in message else ""
        text = " ".join(part for part in (forwarded, f"[{kind}]" if kind else "", text) if part)
        service, reply, edited = (
            message["type"] == "service",
            message.get("reply_to_message_id"),
            message.get("edited_unixtime"),
        )
        thread, author, name = str(chat["id"]), message.get("from_id"), message.get("from")
        if service:
            author, name = message.get("actor_id"), message.get("actor")
        if author and name:
            names.add((thread, author, name, "display_name"))
            if (first := name.split()[0]) != name:
                names.add((thread, author, first, "first_name"))
        yield {
            "native_thread": thread, "native_id": str(message["id"]), "numbering": None,
            "native_parent": None if reply is None else str(reply),
            "native_author": author, "author_name": name,
            "role": "service" if service else "user",
            "created_at": datetime.fromtimestamp(int(message["date_unixtime"]), UTC),
            "edited_at": datetime.fromtimestamp(int(edited), UTC) if edited else None,
            "text": f"[{message['action']}]" if service else text, "media_kind": kind, "community": None,
            "thread_shape": "linear", "is_owner": False, "is_public": chat["type"].startswith("public_"),
            "raw_sha256": SHA256, "raw_member": "", "raw_location": index,
        }  # fmt: skip


def usual_chatgpt(path: Path, _: Names) -> Iterator[dict[str, Any]]:
    """The rows by json.load and a loop."""
    with path.open() as stream:
        conversations = json.load(stream)
    index = 0
    for conversation in conversations:
        mapping, at, names = conversation["mapping"], conversation["current_node"], []
        while at:
            names.append(at)
            at = mapping[at]["parent"]
        parent = None
        for name in reversed(names):
            message = mapping[name]["message"]
            role = message["author"]["role"]
            text = "\n".join(part for part in message["content"]["parts"] if isinstance(part, str))
            yield {
                "native_thread": conversation["conversation_id"], "native_id": name, "numbering": None,
                "native_parent": parent,
                "native_author": path.name if role == "user" else None, "author_name": None, "role": role,
                "created_at": datetime.fromtimestamp(message["create_time"], UTC), "edited_at": None,
                "text": text, "media_kind": None, "community": None, "thread_shape": "tree", "is_owner": role == "user",
                "is_public": False, "raw_sha256": SHA256, "raw_member": "", "raw_location": index,
            }  # fmt: skip
            parent, index = name if text else parent, index + 1


def usual_batches(kind: str, path: Path) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Messages and names the usual way: a list of records, then a frame."""
    names: Names = set()
    rows = list((usual_telegram if kind == "telegram" else usual_chatgpt)(path, names))
    yield (
        pl.DataFrame(rows, schema=NATIVE_MESSAGES.schema),
        pl.DataFrame(list(names), schema=NAMES_SCHEMA, orient="row"),
    )


def reader_batches(kind: str, path: Path) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """The reader's messages and names."""
    for batch in (telegram if kind == "telegram" else chatgpt).read(RawFile(path, path.name, SHA256)):
        if batch.rejected:
            raise AssertionError(f"{len(batch.rejected)} records rejected, the first: {batch.rejected[0]}")
        yield batch.messages, batch.names


def measure(side: str, kind: str, path: Path) -> None:
    """Read the file one way; print seconds, rows, peak memory in MB and a hash of the rows, as JSON."""
    run: dict[str, Any] = {"seconds": 0.0, "cpu": 0.0, "rows": 0}
    digest, every_name = hashlib.sha256(), set()
    batches = (usual_batches if side == "usual" else reader_batches)(kind, path)
    while True:
        start, cpu = time.perf_counter(), time.process_time()
        batch = next(batches, None)
        run["seconds"] += time.perf_counter() - start
        run["cpu"] += time.process_time() - cpu
        if batch is None:
            break
        messages, names = batch
        every_name.update(names.rows())
        run["rows"] += messages.height
        run["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        for part in messages.iter_slices(10_000):  # row by row, so that the size of batches does not matter
            digest.update(b"".join(hashlib.md5(repr(row).encode()).digest() for row in part.iter_rows()))
    digest.update(repr(sorted(every_name)).encode())
    print(json.dumps(run | {"hash": digest.hexdigest()}))


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
        times = f"{run['seconds']:7.2f} s  {run['cpu']:6.2f} s CPU  {speed:10,.0f} rows/s"
        print(f"  {name:<17} {times}  peak {run['peak_mb']:6.0f} MB")
    equal = usual["hash"] == ours["hash"] and usual["rows"] == ours["rows"]
    print(f"  ratio {ratio:.1f} (CPU {usual['cpu'] / ours['cpu']:.1f}), rows equal: {equal}", flush=True)


def main() -> None:
    """Generate, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=3)
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
