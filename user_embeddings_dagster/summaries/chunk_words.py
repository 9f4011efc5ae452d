"""The words of a chunk by whose they are: what the constraints compare a summary with.

A word counts as SUBJECT's own unless it stands in a quotation, or in a text that instructs the reader (an
injection). Words are compared by a light stem, so that "buying" is "buy"; the words of grammar, of reporting
("asks") and of generalising ("someone", "amount") are left out. Only English is compared with English: a chunk in
which SUBJECT writes another language has `english` False, and nothing can be said of its words.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from user_embeddings_dagster.conversations.rendering import SUBJECT
from user_embeddings_dagster.privacy.names import FUNCTION_WORDS
from user_embeddings_dagster.privacy.normalise import fold


def _listed(text: str) -> frozenset[str]:
    return frozenset(text.split())


RUN = 6  # consecutive words of a chunk that make a quotation
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_PLACEHOLDER = re.compile(r"<[A-Z]+\d*>|\[[a-z ]+\]")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)]*\s+|(?<=[。！？])|\n+")
_QUOTED = re.compile(r"^\s*>.*$|\"[^\"\n]{8,}\"|“[^”\n]{8,}”|«[^»\n]{8,}»|„[^“”\n]{8,}[“”]", re.MULTILINE)
_INJECTION = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:instructions?|prompts?|rules)\b|\byou are now\b"
    r"|\b(?:print|output|reveal|repeat|show|write|list)\b.{0,40}\b(?:names|system prompt|your (?:prompt|instructions))"
    r"|\b(?:system|developer) (?:message|override)\b|\bnew instructions?:"
    r"|\b(?:note|message|instructions?) (?:to|for) the (?:summari[sz]er|model|ai|assistant)\b"
    r"|\bthe summar(?:y|ies) (?:must|should|has to)\b",
    re.IGNORECASE,
)
# One of these is in every text that _INJECTION matches: looking for them first takes a tenth of the time.
_INJECTION_SIGNS = (
    "instruction", "prompt", "rules", "names", "you are now", "system ", "developer ", "note ", "message ", "summar",
)  # fmt: skip
_ENGLISH = _listed("""
the i you to is and of my that it for with have are this be not do can but your if they we just i'm it's don't
on at what how there been will would should who when
""")
_ENGLISH_SHARE = 0.1
_ENGLISH_WORDS = 4  # fewer words of SUBJECT do not show a language: the whole chunk does

# Words with which a summary frames or generalises what was said: they need no support in the chunk.
FRAME = _listed("""
subject someone somebody person people others another user friend member group participant assistant conversation
chat message question answer reply request favour favor help advice opinion view idea point topic thing matter fact
ask say state mention tell report explain describe claim argue believe think feel find consider know understand
express show share note suggest recommend propose advise offer invite agree disagree confirm deny reject accept
decline refuse doubt question wonder hope wish want need plan intend expect decide prefer like love enjoy dislike
hate object complain criticise criticize praise thank apologise apologize joke tease laugh react respond comment
admit recall remember announce introduce discuss compare correct warn encourage support oppose
seek look learn discover try attempt start begin continue stop finish give get take make use have
amount sum money price cost number several many few some date day week month year time moment place city town
country company account address website link recent future past current certain particular specific various
different general own self first second last next previous early late long short big small large little
amusement laughter surprise approval disapproval interest enthusiasm concern frustration sarcasm irony humour
sarcastic sarcastically ironic ironically jokingly humorously briefly further instead because due about
""")


_NUMBERS = dict(zip("123456789", ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), strict=True))


@dataclass(frozen=True)
class ChunkWords:
    """The words of one chunk: stems by whose they are, and the RUN consecutive words of every turn.

    `injected` are texts that instruct the reader, `instructs` says that SUBJECT wrote one. `speechless`: SUBJECT's
    turns hold neither a word nor an emoji.
    """

    speakers: tuple[str, ...]
    by_turn: tuple[frozenset[str], ...]
    own: frozenset[str]
    others: frozenset[str]
    injected: frozenset[str]
    runs: frozenset[tuple[str, ...]]
    english: bool
    n_own_words: int
    instructs: bool
    own_sentences: tuple[str, ...]
    speechless: bool

    @property
    def all(self) -> frozenset[str]:
        """Stems of all turns."""
        return self.own | self.others | self.injected


def chunk_words(speakers: Sequence[str], turns: Sequence[str]) -> ChunkWords:
    """The words of the chunk with these speakers and texts of turns."""
    tokens = [words(text) for text in turns]
    own_words: list[str] = []
    own_sentences: list[str] = []
    others: list[str] = []
    injected: list[str] = []
    instructs = False
    for speaker, text, spoken in zip(speakers, turns, tokens, strict=True):
        said, forged = _without_injection(text)
        if forged:
            injected += words(forged)
            spoken = words(said)
        if speaker != SUBJECT:
            others += spoken
            continue
        instructs |= forged != ""
        own, quoted = _without_quotes(said)
        others += words(quoted)
        own_words += words(own) if quoted else spoken
        own_sentences += sentences(own)
    return ChunkWords(
        speakers=tuple(speakers),
        by_turn=tuple(map(_stems, tokens)),
        own=_stems(own_words),
        others=_stems(others),
        injected=_stems(injected),
        runs=frozenset(chain.from_iterable(map(runs, tokens))),
        english=_is_english(own_words if len(own_words) >= _ENGLISH_WORDS else list(chain(*tokens))),
        n_own_words=len(own_words),
        instructs=instructs,
        own_sentences=tuple(own_sentences),
        speechless=not any(_says_something(t) for s, t in zip(speakers, turns, strict=True) if s == SUBJECT),
    )


def words(text: str) -> list[str]:
    """Folded words of `text`, placeholders left out."""
    return _WORD.findall(fold(_PLACEHOLDER.sub(" ", text)))


@lru_cache(maxsize=1_000)
def stems(text: str) -> frozenset[str]:
    """Stems of the content words of `text`."""
    return _stems(words(text))


def _stems(tokens: Iterable[str]) -> frozenset[str]:
    return frozenset(map(_content_stem, tokens)) - {""}


def sentences(text: str) -> list[str]:
    """Sentences of `text`, without empty ones."""
    return [part for piece in _SENTENCE_END.split(text) if (part := piece.strip())]


def runs(tokens: Sequence[str], size: int = RUN) -> Iterable[tuple[str, ...]]:
    """Every `size` consecutive tokens."""
    return zip(*(tokens[start:] for start in range(size)), strict=False)


@lru_cache(maxsize=200_000)
def _content_stem(word: str) -> str:
    """Stem of a content word; '' for words of grammar and of the frame, and for single letters and digits."""
    word = _NUMBERS.get(word) or word.replace("’", "'").partition("'")[0]
    if len(word) < 2 or word in FUNCTION_WORDS:
        return ""
    stem = _stem(word)
    return "" if stem in _FRAME_STEMS else stem


def _stem(word: str) -> str:
    for suffix in ("ings", "ing", "ies", "ied", "ers", "est", "ed", "es", "er", "ly", "s", "e", "y"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word.removesuffix(suffix)
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    return word[:6]


_FRAME_STEMS = frozenset(map(_stem, FRAME))


def _is_english(tokens: Sequence[str]) -> bool:
    known = sum(token.replace("’", "'") in _ENGLISH for token in tokens)
    return known >= max(1, _ENGLISH_SHARE * len(tokens))


def _without_injection(text: str) -> tuple[str, str]:
    """`text` up to the first sentence that instructs the reader, and the rest."""
    lowered = text.lower()
    found = _INJECTION.search(text) if any(sign in lowered for sign in _INJECTION_SIGNS) else None
    if found is None:
        return text, ""
    start = max((end.end() for end in _SENTENCE_END.finditer(text, 0, found.start())), default=0)
    return text[:start], text[start:]


def _without_quotes(text: str) -> tuple[str, str]:
    quoted = _QUOTED.findall(text)
    return (_QUOTED.sub(" ", text), " ".join(quoted)) if quoted else (text, "")


def _says_something(text: str) -> bool:
    """A letter, a digit or a symbol such as an emoji; punctuation and placeholders alone say nothing."""
    return any(c.isalnum() or (ord(c) >= 0x2190 and not c.isspace()) for c in _PLACEHOLDER.sub("", text))
