"""Known people: every name of a thread's participants becomes a mark that chunks render (C9).

A message is masked once per thread. A mark is one private-use character that stands for the people who bear
the name; `conversations.rendering` writes it as SUBJECT, `<P1>`, `<P2>`, … for one chunk. Matching is by
folded tokens in a dictionary, so that its time is linear in the text whatever the number of names.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from user_embeddings_dagster.privacy.given_parts import is_meant
from user_embeddings_dagster.privacy.names import TOKEN, Name, variants
from user_embeddings_dagster.privacy.ner import PersonModel
from user_embeddings_dagster.privacy.normalise import UNSPACED, canonical, fold_with_offsets, one_space
from user_embeddings_dagster.privacy.patterns import HANDLES
from user_embeddings_dagster.privacy.pii import IDENTIFIERS, PEOPLE, mark_kinds, mark_spans

_FIRST_MARK = 0xF0000
_LAST_MARK = 0x10FFFD
NAME_MARK = re.compile("[\U000f0000-\U0010fffd]")
ANY_MARK = re.compile("[\ue000-\uf8ff\U000f0000-\U0010fffd]")
_LOOSE_GAP = re.compile(r"[ _.\-]{1,2}")
_WHITE = re.compile(r"\s+")
# Where a handle ends and a word goes on, a name may stand that no word began with before.
_CUT_WORD = r"[\p{L}\p{M}\p{N}][\x{E000}-\x{F8FF}]|[\x{E000}-\x{F8FF}][\p{L}\p{M}\p{N}]"
_ADDRESSED_AFTER = re.compile(r"\s?[:,]")
_MENTIONED_BEFORE = re.compile(r"(?:@|(?:^|[^a-z0-9])u/|t\.me/)$")
_DECORATION = "_`^|"
_BRACKETS = {"]": "[", ")": "(", "}": "{"}
_PREFIX_CHARACTERS = 12  # enough to see "@", "u/" or "t.me/" in front of a name


@dataclass
class _Entry:
    people: set[str] = field(default_factory=set)
    gaps: set[tuple[str, ...]] = field(default_factory=set)
    ambiguous: bool = True


@dataclass(frozen=True)
class _Span:
    start: int
    end: int
    people: frozenset[str]


class ThreadNames:
    """Dictionary of one thread's names and the marks given to the people found in its texts."""

    def __init__(
        self, participants: Iterable[tuple[str, str, str]], people: Mapping[str, frozenset[str]] | None = None
    ) -> None:
        """`participants`: (author id, canonical name, kind of name); `people`: marks that are given already."""
        self._entries: dict[tuple[str, ...], _Entry] = defaultdict(_Entry)
        self._unspaced: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._whole = set[str]()  # unspaced names that are no part of another
        self._marks = {who: mark for mark, who in (people or {}).items()}
        for author, name, kind in participants:
            for variant in variants(name, kind):
                self._add(author, variant)
        lengths: dict[str, set[int]] = defaultdict(set)
        for tokens in self._entries:
            lengths[tokens[0]].add(len(tokens))
        self._lengths = {head: sorted(sizes, reverse=True) for head, sizes in lengths.items()}
        self.ambiguous = sum(entry.ambiguous for entry in self._entries.values())

    def _add(self, author: str, name: Name) -> None:
        if name.unspaced and not name.ambiguous:
            unspaced = _as_written(name.unspaced)
            self._unspaced[unspaced[:2]][unspaced].add(author)
            self._whole |= set() if name.part else {unspaced}
            return
        entry = self._entries[name.tokens]
        entry.people.add(author)
        entry.gaps.add(tuple(map(_as_written, name.separators)))
        entry.ambiguous &= name.ambiguous

    @property
    def people(self) -> dict[str, frozenset[str]]:
        """Who each mark given so far may stand for."""
        return {mark: people for people, mark in self._marks.items()}

    def mask(self, text: str) -> str:
        """Canonical `text` with every known name replaced by a mark.

        Repeated until nothing changes: a mark inside an unspaced run makes a word of what is left of it.
        """
        while (masked := self._masked_once(text)) != text:
            text = masked
        return text

    def _masked_once(self, text: str) -> str:
        folded, offsets = fold_with_offsets(text)
        spans: list[_Span] = []
        if not self._lengths.keys().isdisjoint(TOKEN.findall(folded)):
            spans.extend(self._spaced_spans(folded))
        if self._unspaced and UNSPACED.search(folded):
            spans.extend(self._unspaced_spans(*one_space(_quoted(folded))))
        return self._replace(text, folded, offsets, spans) if spans else text

    def _spaced_spans(self, folded: str) -> Iterator[_Span]:
        tokens = list(TOKEN.finditer(folded))
        words = [token.group() for token in tokens]
        place = lead = 0  # `lead`: the token that would still be an addressee at the start
        while place < len(words):
            found = self._longest(folded, tokens, words, place, place == lead)
            if found is None:
                place += 1
                continue
            size, people = found
            yield _Span(tokens[place].start(), tokens[place + size - 1].end(), people)
            lead = place + size if place == lead else lead
            place += size

    def _longest(
        self, folded: str, tokens: list[re.Match[str]], words: list[str], place: int, leads: bool
    ) -> tuple[int, frozenset[str]] | None:
        for size in self._lengths.get(words[place], ()):
            entry = self._entries.get(tuple(words[place : place + size]))
            if entry is None or place + size > len(words):
                continue
            ends = range(place, place + size - 1)
            gaps = tuple(folded[tokens[i].end() : tokens[i + 1].start()] for i in ends)
            if not any(_same_gaps(gaps, own) for own in entry.gaps):
                continue
            start, end = tokens[place].start(), tokens[place + size - 1].end()
            if entry.ambiguous and not _is_addressed(folded, start, end, leads):
                continue
            return size, frozenset(entry.people)
        return None

    def _unspaced_spans(self, folded: str, places: Sequence[int]) -> Iterator[_Span]:
        for start in range(len(folded) - 1):
            names = self._unspaced.get(folded[start : start + 2])
            if names:
                found = [name for name in names if folded.startswith(name, start) and self._meant(folded, start, name)]
                if found:
                    longest = max(found, key=len)
                    end = places[start + len(longest) - 1] + 1
                    yield _Span(places[start], end, frozenset(names[longest]))

    def _meant(self, folded: str, start: int, name: str) -> bool:
        return name in self._whole or is_meant(folded, start, start + len(name))

    def _replace(self, text: str, folded: str, offsets: list[int] | None, spans: list[_Span]) -> str:
        pieces: list[str] = []
        done = 0
        for span in sorted(spans, key=lambda s: (s.start, -s.end)):
            start, end = _decorated(folded, span.start, span.end)
            if offsets is not None:
                start = offsets[start]
                end = offsets[end] if end < len(offsets) else len(text)
            if start < done:
                start = done
            if end <= done:
                continue
            pieces += text[done:start], self._mark(span.people)
            done = end
        return "".join((*pieces, text[done:]))

    def _mark(self, people: frozenset[str]) -> str:
        mark = self._marks.get(people)
        if mark is None:
            code = _FIRST_MARK + len(self._marks)
            code += 2 * (code >= 0xFFFFE)  # U+FFFFE and U+FFFFF are no characters
            if code > _LAST_MARK:
                raise ValueError("a thread names more than 131,068 people: split it before masking")
            mark = self._marks[people] = chr(code)
        return mark


def _same_gaps(gaps: tuple[str, ...], own: tuple[str, ...]) -> bool:
    """Between a name's words stands what the name has there, white space being alike, or one or two of " _.-"."""
    pairs = zip(gaps, own, strict=True)
    return all(_LOOSE_GAP.fullmatch(gap) or _as_written(gap) == of_name for gap, of_name in pairs)


def _as_written(part: str) -> str:
    """A name's part as chunks have it: a line break is a space there, and several are one."""
    return _WHITE.sub(" ", _quoted(part))


def _quoted(text: str) -> str:
    """Within a name a backtick is an apostrophe; around one it is a decoration, and so it is not folded."""
    return text.replace("`", "'")


def _is_addressed(folded: str, start: int, end: int, leads: bool) -> bool:
    if _MENTIONED_BEFORE.search(folded[max(0, start - _PREFIX_CHARACTERS) : start]):
        return True
    return leads and bool(_ADDRESSED_AFTER.match(folded, end))


def _decorated(folded: str, start: int, end: int) -> tuple[int, int]:
    """The span with the "@", "u/" or "/u/" before it, or the "_" that grow on IRC nicks."""
    before = folded[max(0, start - 3) : start]
    if before.endswith("@"):
        start -= 1
    elif before == "/u/":
        start -= 3
    elif before.endswith("u/") and not before[:-2].isalnum():
        start -= 2
    else:
        while start and folded[start - 1] in _DECORATION:
            start -= 1
    closing = folded[end : end + 1]
    if closing in _BRACKETS and _BRACKETS[closing] in folded[start:end]:  # "ann[m]"
        end += 1
    while end < len(folded) and folded[end] in _DECORATION:
        end += 1
    return start, end


@dataclass(frozen=True)
class MaskedTexts:
    """Marked texts in the order given, the people behind each thread's marks, and counts by kind."""

    texts: pl.Series
    people: dict[str, dict[str, frozenset[str]]]
    counts: dict[str, int]


def thread_names(participants: pl.DataFrame, messages: pl.DataFrame) -> pl.DataFrame:
    """For each person of a thread of `messages`, every name they bear anywhere in the DataDAO.

    A person of a thread is who PARTICIPANTS says, and who wrote there: an export may name its owner, or a partner, in
    one thread of many. Columns thread_id, author_id, name (canonical), name_kind; sorted.
    """
    names = participants.select("author_id", canonical(participants["name"]).alias("name"), "name_kind").unique()
    wrote = messages.select("thread_id", "author_id").drop_nulls()
    named = participants.select("thread_id", "author_id").join(wrote, on="thread_id", how="semi")
    people = pl.concat([named, wrote]).unique()
    return people.join(names, on="author_id").sort("thread_id", "author_id", "name", "name_kind")


def mask_messages(
    messages: pl.DataFrame,
    participants: pl.DataFrame,
    progress: Callable[[int, int], None] | None = None,
    *,
    persons: bool = True,
    model: PersonModel | None = None,
) -> MaskedTexts:
    """Mask `messages` (columns thread_id, text; one thread's rows adjacent) once per thread.

    `participants` as `thread_names` gives them; `persons`: also names of people who are not in the chat
    (`privacy.persons`), `model`: and those that it finds. `progress(messages masked, messages)` after each thread.
    """
    marked, counts = mark_kinds(canonical(messages["text"]), IDENTIFIERS)
    by_thread = {str(key[0]): frame for key, frame in participants.partition_by("thread_id", as_dict=True).items()}
    runs = messages["thread_id"].rle().struct.unnest()
    texts: list[str] = marked.to_list()
    people: dict[str, dict[str, frozenset[str]]] = {}
    start = ambiguous = 0
    for length, thread in runs.select("len", "value").iter_rows():
        frame = by_thread.get(thread)
        if frame is not None:
            names = ThreadNames(frame.select("author_id", "name", "name_kind").iter_rows())
            texts[start : start + length] = map(names.mask, texts[start : start + length])
            people[thread] = names.people
            ambiguous += names.ambiguous
        start += length
        if progress:
            progress(start, len(texts))
    with_handles, handles = mark_kinds(pl.Series(texts, dtype=pl.String), PEOPLE if persons else HANDLES)
    if model is not None:
        with_handles, found = mark_spans(with_handles, model.spans(with_handles), "PERSON")
        handles["PERSON"] = handles.get("PERSON", 0) + found
    with_handles = _mask_cut_words(with_handles, messages["thread_id"], by_thread, people)
    n_names = int(with_handles.str.count_matches(NAME_MARK.pattern).sum() or 0)
    counts = {f"masked_{name.lower()}": n for name, n in (counts | handles).items()}
    return MaskedTexts(with_handles, people, counts | {"masked_name": n_names, "ambiguous_names": ambiguous})


def _mask_cut_words(
    texts: pl.Series,
    threads: pl.Series,
    names: Mapping[str, pl.DataFrame],
    people: dict[str, dict[str, frozenset[str]]],
) -> pl.Series:
    """`texts` without the names that stand beside a handle within one word; `people` gains their marks.

    Such texts are so rare that their threads' dictionaries are made again rather than kept.
    """
    places = texts.str.contains(_CUT_WORD).fill_null(False).arg_true()
    cut = pl.DataFrame({"place": places, "thread": threads.gather(places)})
    for (thread,), frame in cut.partition_by("thread", as_dict=True).items():
        if thread in people:
            known = ThreadNames(names[thread].select("author_id", "name", "name_kind").iter_rows(), people[thread])
            masked = [known.mask(text) for text in texts.gather(frame["place"])]
            texts = texts.clone().scatter(frame["place"], pl.Series(masked, dtype=pl.String))
            people[thread] = known.people
    return texts
