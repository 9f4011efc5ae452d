"""All sources at once: every export format, in six DataDAOs."""

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.leaks import chatgpt, dfusion, reddit, telegram
from benchmarks.leaks.kinds import KINDS, NAMES
from benchmarks.leaks.planting import CLASSES, Source, source, write

Writer = Callable[[Source, Path], None]
_ALL, _NOBODY, _HANDLES = CLASSES, ("spoken", "filed", "dropped"), ("name_handle",)
# A public chat beside contributors' accounts would be context only: it has a DataDAO of its own.
# Format: its DataDAO, what writes it, the classes of its fields, the kinds of names that the people in it have.
FORMATS: dict[str, tuple[str, Writer, tuple[str, ...], tuple[str, ...]]] = {
    "reddit_request_zip": ("reddit", reddit.write_zips, _NOBODY, _HANDLES),
    "reddit_request_csv": ("reddit", reddit.write_csvs, _NOBODY, _HANDLES),
    "reddit_dump": ("pushshift", reddit.write_dumps, _ALL, _HANDLES),
    "telegram_account": ("telegram", telegram.write_accounts, _ALL, NAMES),
    "telegram_chat": ("telegram_public", telegram.write_chats, _ALL, NAMES),
    "dfusion_miner": ("dfusion", dfusion.write_miner, _NOBODY, ()),
    "dfusion_webapp": ("dfusion", dfusion.write_webapp, _NOBODY, ()),
    "chatgpt_zip": ("chatgpt", chatgpt.write_zips, _ALL, NAMES),
    "chatgpt_bare": ("chatgpt", chatgpt.write_bare, _ALL, NAMES),
    "chatgpt_connector": ("chatgpt", chatgpt.write_connector, _ALL, NAMES),
}
CONSENT = {"consent": {"basis": "canaries", "purposes": ["train", "evaluate", "serve", "compare"]}}


def write_exports(
    landing: Path, each: int, seed: int = 1, kinds: Sequence[str] = (), formats: Sequence[str] = ()
) -> list[Source]:
    """Exports of the formats (default: all) below `landing`, with `each` canaries of each kind in every class."""
    sources, taken = [], set()
    for name in formats or FORMATS:
        datadao, write_format, classes, names = FORMATS[name]
        chosen = {"classes": classes, "names": names, "kinds": kinds or tuple(KINDS)}
        made = source(name, datadao, seed, each, **chosen, taken=taken)
        write_format(made, landing)
        _attach(made, landing)
        write(landing / datadao / "datadao.json", json.dumps(CONSENT).encode())
        sources.append(made)
    return sources


def _attach(made: Source, landing: Path) -> None:
    """An archive of no known format beside the exports, whose members are called like canaries."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for place, one in enumerate(made.planted["filed"]):
            archive.writestr(f"{place}/{one.written}.txt", str(place))
    write(landing / made.datadao / f"attachments of {made.format}.zip", packed.getvalue())
