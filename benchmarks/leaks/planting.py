"""Which canaries stand in which field.

Each format gets canaries of its own for each class of fields, so that a hit says where it came from:

spoken    fields whose text becomes a message: it may stand in `messages`, which is before masking
named     fields that name people: they may stand in `participants`, which is what masks them
filed     names of files and archive members: they may stand in `raw_files`, and in `raw_member` and `raw_file`
dropped   fields that nothing needs: they may stand in the landing folder alone

They come in batches, each batch once through every field of its class, so that every field holds every canary.
Names of participants (`people`) are said in spoken fields of the same thread.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.leaks.kinds import Canary, apart, canaries, named

CLASSES = ("spoken", "named", "filed", "dropped")
PEOPLE = "people"
BATCH = 25  # canaries in one field
MESSAGES_PER_ACCOUNT = 8
START, DAY = 1_700_000_000, 86_400
_OPENINGS = (
    "The trains to the lake were late again", "We repainted the old wooden fence", "I finally fixed the bread recipe",
    "My telescope arrived and the sky was clear", "The new compiler release broke our build",
    "They changed the rules of the chess league", "The garden needs more water this summer",
    "I am learning to play the cello", "Our team moved the database to another host", "The museum opened a quiet wing",
)  # fmt: skip
# No character that a path or an archive's member cannot have.
_LONGEST_NAME = 100
_FILE_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ._-@+()[]',")


@dataclass
class Source:
    """One export format's canaries and where it writes its files: landing/<datadao>/."""

    format: str
    datadao: str
    planted: dict[str, list[Canary]]
    people: list[Canary] = field(default_factory=list)

    def batches(self, of: str) -> Iterator[list[Canary]]:
        """The canaries of a class, BATCH together."""
        found = self.planted[of]
        for start in range(0, len(found), BATCH):
            yield found[start : start + BATCH]


def source(
    format: str,
    datadao: str,
    seed: int,
    each: int,
    *,
    classes: Sequence[str],
    names: Sequence[str],
    kinds: Sequence[str],
    taken: set[str] | None = None,
) -> Source:
    """Canaries of a format: `each` of the kinds in each of its classes, and of the kinds of names of its people.

    None is like what is `taken` (needles, words of them), which grows by them.
    """
    planted, taken = {}, set() if taken is None else taken
    for of in classes:
        draw = Random(f"{seed}/{format}/{of}")
        made = list(canaries(draw, each, kinds, taken))
        if of == "filed":
            made = [one for one in made if _FILE_NAME.issuperset(one.written) and len(one.written) <= _LONGEST_NAME]
        draw.shuffle(made)
        planted[of] = made
    draw = Random(f"{seed}/{format}/people")
    people = [apart(lambda kind=kind: named(draw, kind), taken) for _ in range(each) for kind in names]
    return Source(format, datadao, planted, people)


def said(number: int, batch: Sequence[Canary], *more: Canary) -> str:
    """A message with the batch in it, each in its sentence."""
    sentences = [one.sentence for one in (*batch, *more)]
    return ". ".join([f"{_OPENINGS[number % len(_OPENINGS)]}, day {number}", *sentences])


def listed(batch: Sequence[Canary]) -> str:
    """The batch in a field that is no sentence."""
    return " ; ".join(one.written for one in batch)


def everywhere(value: Any, text: str) -> Any:
    """JSON with `text` in all its strings: what a field that is dropped as a whole holds."""
    if isinstance(value, str):
        return text
    if isinstance(value, Mapping):
        return {key: everywhere(item, text) for key, item in value.items()}
    return [everywhere(item, text) for item in value] if isinstance(value, list) else value


def quiet(number: int) -> str:
    """A message without any canary."""
    return f"{_OPENINGS[number % len(_OPENINGS)]}, nothing else on day {number} to tell"


def write(path: Path, content: bytes) -> None:
    """A file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
