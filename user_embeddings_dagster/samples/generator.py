"""Writes the sample exports of four DataDAOs: reddit, telegram, chatgpt and pushshift."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

from user_embeddings_dagster.privacy.sealed_format import SUFFIX
from user_embeddings_dagster.samples import archives, chatgpt, consent, reddit, telegram
from user_embeddings_dagster.samples.bank import topics
from user_embeddings_dagster.samples.casting import FORUM, play, scenes
from user_embeddings_dagster.samples.dialogue import Dialogue, Thread
from user_embeddings_dagster.samples.grammar import Grammar
from user_embeddings_dagster.samples.oddities import plant, tally_texts
from user_embeddings_dagster.samples.people import Person, bystanders, person, sharing
from user_embeddings_dagster.samples.people import contributors as cast_of
from user_embeddings_dagster.samples.reddit_request import write_request
from user_embeddings_dagster.samples.storyline import Session, storyline
from user_embeddings_dagster.storage.durability import read_json, write_json

MARK = ".samples"  # beside the DataDAOs' folders, where no contributor writes: they are samples
DATADAOS = ("reddit", "telegram", "chatgpt", "pushshift")
Progress = Callable[[str, int, int], None]
_PUBLIC_SHARE = 0.22  # pushshift's regular authors per contributor


@dataclass(frozen=True)
class SampleManifest:
    """What was written. `oddities` counts what was planted, per DataDAO and kind.

    people: contributors. in_two: contributors with accounts in two DataDAOs. messages: distinct messages written per
    DataDAO (Telegram without service messages; ChatGPT on the paths from `current_node`, without system messages).
    files: paths below the landing folder.
    """

    seed: int
    people: int
    in_two: int
    messages: dict[str, int]
    files: tuple[str, ...]
    oddities: dict[str, dict[str, int]]


@dataclass(frozen=True)
class _Written:
    """What `MARK` tells of the samples beside it: no names of files, which are of accounts."""

    generator: str
    contributors: int
    listing: str
    manifest: SampleManifest  # without its files


def _silent(_stage: str, _done: int, _total: int) -> None:
    return


def _sessions(seed: int, people: Sequence[Person], platform: str) -> list[Session]:
    """Sessions of `people` on `platform`. Who uses two platforms lives one storyline, spread over both."""
    found: list[Session] = []
    for one in people:
        rng = Random(f"{seed}:story:{one.number}")
        both = len(one.platforms) == 2
        length = int(rng.triangular(9, 24, 12)) + 8 * both
        whole = storyline(rng, one, length)
        sides = [rng.choice(one.platforms) if both else platform for _ in whole]
        found += [s for s, side in zip(whole, sides, strict=True) if side == platform]
    return found


def _accounts(folder: Path, rows: list[tuple[str, str]]) -> Path:
    path = folder / "contributors.csv"
    archives.write(path, archives.csv_text(("contributor", "account"), rows).replace("\r\n", "\n").encode())
    return path


def _forum(
    seed: int, name: str, people: Sequence[Person], others: Sequence[Person], tally: Counter[str]
) -> tuple[Random, Dialogue, list[Thread]]:
    rng = Random(f"{seed}:{name}")
    dialogue = Dialogue(rng, Grammar(rng))
    sessions = _sessions(seed, people, name)

    def place(session: Session) -> str:
        subs = topics()[session.topic].subs
        return rng.choice(subs) if subs else session.topic

    threads = [
        play(rng, dialogue, s, FORUM, sharing(rng, others, s.sessions[0].topic, 5))
        for s in scenes(rng, sessions, FORUM, place)
    ]
    plant(rng, dialogue, threads, tally)
    return rng, dialogue, threads


def _reddit(
    seed: int, folder: Path, people: Sequence[Person], others: Sequence[Person], tally: Counter[str]
) -> tuple[int, list[Path]]:
    rng, dialogue, threads = _forum(seed, "reddit", people, others, tally)
    items = reddit.items_of(rng, dialogue, threads, 40_000_000)
    reddit.disturb(rng, items, {p.number for p in people}, tally)
    paths = reddit.write_dumps(rng, folder / "dumps", items, tally, None, broken=True)
    paths += [write_request(rng, folder / "requests", p, items, tally) for p in people]
    paths.append(_accounts(folder, [(p.wallet, reddit.account(p)) for p in people]))
    paths.append(consent.grants(folder, "reddit", [reddit.account(p) for p in people]))
    tally_texts([i.text for i in items], tally)
    owners = {p.number for p in people}
    return sum(i.in_dump or (i.person is not None and i.person.number in owners) for i in items), paths


def _pushshift(
    seed: int, folder: Path, others: Sequence[Person], count: int, tally: Counter[str]
) -> tuple[int, list[Path]]:
    authors = [person(Random(f"{seed}:public:{n}"), 10_000 + n) for n in range(count)]
    rng, dialogue, threads = _forum(seed, "pushshift", authors, others, tally)
    items = reddit.items_of(rng, dialogue, threads, 55_000_000)
    reddit.disturb(rng, items, {p.number for p in authors}, tally)
    paths = reddit.write_dumps(rng, folder, items, tally, "2024-02", broken=False)
    paths.append(consent.statement(folder, "public archive"))
    tally_texts([i.text for i in items], tally)
    return sum(i.in_dump for i in items), paths


def _telegram(
    seed: int, folder: Path, people: Sequence[Person], others: Sequence[Person], tally: Counter[str]
) -> tuple[int, list[Path]]:
    rng = Random(f"{seed}:telegram")
    world = telegram.World(rng, Dialogue(rng, Grammar(rng)), people, others, tally)
    world.live(_sessions(seed, people, "telegram"))
    paths = world.write(folder)
    paths.append(_accounts(folder, [(p.wallet, f"user{p.telegram_id}") for p in people]))
    paths.append(consent.grants(folder, "telegram", [f"user{p.telegram_id}" for p in people]))
    chats = [*world.groups, *(chat for own in world.own.values() for chat in own)]
    rows = [m for chat in chats for m in chat.messages if m["type"] == "message"]
    tally_texts(["".join(e["text"] for e in m["text_entities"]) for m in rows], tally)
    return len(rows), paths


def _chatgpt(seed: int, folder: Path, people: Sequence[Person], tally: Counter[str]) -> tuple[int, list[Path]]:
    rng = Random(f"{seed}:chatgpt")
    dialogue = Dialogue(rng, Grammar(rng))
    paths = []
    for one in people:
        told = [chatgpt.conversation(rng, dialogue, s, tally) for s in _sessions(seed, [one], "chatgpt")]
        paths.append(chatgpt.write_export(rng, folder / "exports", one, told))
        for tale in told:
            nodes = [node["message"] for node in tale["mapping"].values() if node["message"]]
            tally_texts([str(part) for m in nodes for part in m["content"].get("parts", ())], tally)
    paths.append(_accounts(folder, [(p.wallet, p.chatgpt_id) for p in people]))
    paths.append(consent.grants(folder, "chatgpt", [p.chatgpt_id for p in people]))
    return tally["records"], paths


def generate(landing: Path, seed: int = 7, contributors: int = 128, progress: Progress | None = None) -> SampleManifest:
    """Write the sample exports below `landing`/<datadao>/. The same seed and count give the same bytes.

    Where this generator has written them before, and its files are there yet, in clear or sealed, nothing is written.
    `progress(datadao, done, total)` is called as each DataDAO is finished. Raises ValueError for fewer than 20
    contributors (the DataDAOs would be empty shells), and where a DataDAO of one of the names is there that was not
    written by this: its consent.csv would be replaced, revocations with it.
    """
    if contributors < 20:
        raise ValueError(f"contributors: {contributors} is fewer than 20")
    ours = landing / MARK
    if not ours.exists() and (taken := [name for name in DATADAOS if (landing / name).exists()]):
        raise ValueError(
            f"{landing}: {', '.join(taken)} may be no samples; nothing was written. "
            f"Take another data root, or, where an earlier version wrote them, create an empty file {ours}"
        )
    if (before := _written_before(landing, seed, contributors)) is not None:
        return before
    archives.write(ours, b"")  # first: what was killed is begun again
    report = progress or _silent
    people = cast_of(Random(f"{seed}:people"), contributors)
    others = bystanders(Random(f"{seed}:bystanders"), max(30, contributors), contributors)
    of = {name: [p for p in people if name in p.platforms] for name in DATADAOS}
    writers: dict[str, Callable[[Path, Counter[str]], tuple[int, list[Path]]]] = {
        "reddit": lambda folder, tally: _reddit(seed, folder, of["reddit"], others, tally),
        "telegram": lambda folder, tally: _telegram(seed, folder, of["telegram"], others, tally),
        "chatgpt": lambda folder, tally: _chatgpt(seed, folder, of["chatgpt"], tally),
        "pushshift": lambda f, tally: _pushshift(seed, f, others, int(contributors * _PUBLIC_SHARE), tally),
    }
    messages: dict[str, int] = {}
    files: list[Path] = []
    oddities: dict[str, dict[str, int]] = {}
    for done, (name, write) in enumerate(writers.items(), 1):
        tally: Counter[str] = Counter()
        messages[name], paths = write(landing / name, tally)
        files += paths
        oddities[name] = dict(sorted(tally.items()))
        report(name, done, len(writers))
    relative = tuple(sorted(path.relative_to(landing).as_posix() for path in files))
    in_two = sum(len(p.platforms) == 2 for p in people)
    told = SampleManifest(seed, len(people), in_two, messages, (), oddities)
    write_json(ours, asdict(_Written(_generator(), contributors, _listing(_files(landing)), told)))
    return replace(told, files=relative)


def _written_before(landing: Path, seed: int, contributors: int) -> SampleManifest | None:
    ours = landing / MARK
    if not ours.exists() or not ours.stat().st_size:
        return None
    written = read_json(ours, _Written, "remove it, and the samples with it")
    files = _files(landing)
    asked = (_generator(), seed, contributors, _listing(files))
    if (written.generator, written.manifest.seed, written.contributors, written.listing) != asked:
        return None
    return replace(written.manifest, files=files)


def _generator() -> str:
    """SHA-256 of the code and the words that make them."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*")):
        if path.is_file() and path.parent.name != "__pycache__":
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _files(landing: Path) -> tuple[str, ...]:
    """Below the folders of the samples, as they are named in clear."""
    found = (path for name in DATADAOS for path in (landing / name).rglob("*") if path.is_file())
    return tuple(sorted({path.relative_to(landing).as_posix().removesuffix(SUFFIX) for path in found}))


def _listing(files: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(files).encode()).hexdigest()
