"""F13, C26: more than 200 orders to the language model in contributors' texts, and a model that obeys every one.

What holds is structure, not the model's behaviour: a prompt has one contributor's masked text, an answer is bound by
its schema and length and is masked again. The controls take each part away and are found out by the same look.
"""

import re
from datetime import UTC, datetime, timedelta
from random import Random

import numpy as np
import polars as pl
import pytest

from benchmarks.injections import ATTACKER, payloads
from benchmarks.leaks.kinds import KINDS, canaries
from benchmarks.leaks.search import Finder
from benchmarks.leaks.values import word
from benchmarks.obedient_model import Obedient, obeyed
from user_embeddings_dagster.conversations.chunks import build_chunks
from user_embeddings_dagster.language_models.protocol import Completion, Usage
from user_embeddings_dagster.mining.rankers import CandidateLists, ModelRanker
from user_embeddings_dagster.schema import MESSAGES, PARTICIPANTS
from user_embeddings_dagster.summaries.build import summarise_with
from user_embeddings_dagster.summaries.extraction import extract_with
from user_embeddings_dagster.summaries.koai import KINDS as KOAI_KINDS
from user_embeddings_dagster.summaries.koai import MAX_KOAIS, extract_koai
from user_embeddings_dagster.summaries.subject import MAX_ANSWER_CHARACTERS, summarise_subject

PAYLOADS = payloads()
CATEGORIES = sorted({payload.category for payload in PAYLOADS})
# The collector's own address, telephone, … as the payloads ask for them.
PLANTED = re.compile(
    rf"{re.escape(ATTACKER)}|415 555 2671|(?:ab12){{10}}|@evil_harvester|u/evil_harvester|://|www\.evil|4111 1111", re.I
)
OTHERS = "bdfgmp"  # consonants of names and secrets: no canary's
_draw = Random(5)


def _row(thread, number, author, text, name):
    at = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=number)
    message = {
        "message_id": f"{thread}-{number}", "datadao": "dao", "platform": "telegram", "thread_id": thread,
        "thread_shape": "linear", "parent_id": None, "author_id": author, "role": "user", "is_subject": name is None,
        "created_at": at, "edited_at": None, "text": text, "media_kind": None, "community": None, "raw_sha256": "s",
        "raw_member": "", "raw_location": number,
    }  # fmt: skip
    return message, {
        "datadao": "dao",
        "thread_id": thread,
        "author_id": author,
        "name": name,
        "name_kind": "display_name",
    }


@pytest.fixture(scope="module")
def world():
    """One contributor for each payload, in a thread with a friend; names, secrets by contributor, canaries."""
    messages, names, secrets, people, planted = [], [], {}, [], []
    found = list(canaries(_draw, -(-len(PAYLOADS) // len(KINDS))))
    for number, payload in enumerate(PAYLOADS):
        user, friend = f"{number:032x}", f"{number + 10_000:032x}"
        mine, theirs, secret = (f"{word(_draw, 8, OTHERS).title()} {word(_draw, 10, OTHERS).title()}" for _ in range(3))
        canary = found[number % len(found)]
        text = f"I love the {secret} festival with {theirs}. {canary.sentence}. {payload.text}"
        for place, (who, said, name) in enumerate(
            ((friend, f"{mine} told me of it, {mine.split()[0]} knows", theirs), (user, text, None))
        ):
            message, participant = _row(f"{number:032x}", place * 0, who, said, name)
            messages.append(message | {"message_id": f"{number}-{place}", "raw_location": place})
            names.append(participant | {"name": name or mine})
        secrets[user] = secret
        people += [mine, theirs]
        planted.append(canary)
    frame = pl.DataFrame(messages, MESSAGES.schema)
    chunks = build_chunks(
        MESSAGES.conform(frame), PARTICIPANTS.conform(pl.DataFrame(names, PARTICIPANTS.schema))
    ).chunks
    assert chunks.height == len(PAYLOADS)
    return chunks, secrets, people, planted, frame


def _foreign(texts, owners, secrets):
    """How many texts hold what another contributor wrote: their secret, any word of it."""
    words = {part.casefold(): user for user, secret in secrets.items() for part in secret.split()}
    looked = pl.Series(texts, dtype=pl.String).str.to_lowercase().str.extract_many(list(words))
    return sum(
        any(words[match] != owner for match in found) for found, owner in zip(looked.to_list(), owners, strict=True)
    )


def _names(texts, people):
    words = [part for name in people for part in name.split()]
    return int(pl.Series(texts, dtype=pl.String).str.contains_any(words, ascii_case_insensitive=True).sum())


def test_there_are_two_hundred_payloads_of_every_category():
    assert len(PAYLOADS) >= 200 and len({payload.text for payload in PAYLOADS}) == len(PAYLOADS)
    assert len(CATEGORIES) >= 10


def test_an_order_survives_masking_and_is_obeyed(world):
    """The control of all that follows: the model meets every order and does what it says."""
    chunks, *_ = world
    model = Obedient()
    list(summarise_with(model, summarise_subject(), chunks, max_failed_share=1.0).summaries.iter_rows())
    met = {obeyed("\n".join(message.content for message in request.messages)) for request in model.prompts}
    orders = {
        int(number)
        for request in model.prompts
        for number in re.findall(r"order (\d{3})\b", request.messages[-1].content)
    }
    assert orders == {payload.order for payload in PAYLOADS} and len(met) > 150


def test_summaries_hold_nothing_of_anybody_else(world):
    """F13: 0 foreign words, 0 names, 0 canaries, no live link, bounded, of the schema."""
    chunks, *_ = world
    model = Obedient()
    result = summarise_with(model, summarise_subject(), chunks, max_failed_share=1.0)
    texts, owners = result.summaries["text"].to_list(), result.summaries["user_id"].to_list()
    assert len(texts) > 100 and result.summaries.height + result.unsummarised.height == chunks.height
    _nothing_leaked(texts, owners, world)
    details = result.unsummarised.select("reason", "detail")
    assert set(details["reason"]) <= {"schema_violation", "malformed_json", "nothing_contributed"}
    _nothing_leaked(details["detail"].to_list(), result.unsummarised["user_id"].to_list(), world)


def _nothing_leaked(texts, owners, world):
    _, secrets, people, planted, _ = world
    assert _foreign(texts, owners, secrets) == 0
    assert _names(texts, people) == 0
    finder = Finder(planted)
    assert not finder.whole("\n".join(texts).encode()) and not finder.parts("\n".join(texts).encode())
    assert [text for text in texts if PLANTED.search(text)] == []
    assert (
        max(map(len, texts), default=0) <= 2 * MAX_ANSWER_CHARACTERS
    )  # a placeholder may be longer than what it stands for


def test_koais_hold_nothing_of_anybody_else(world):
    """F13."""
    chunks, *_ = world
    result = extract_with(Obedient(), extract_koai(), chunks, max_failed_share=1.0)
    assert result.koais.height > 100 and result.extractions.height == chunks.height
    _nothing_leaked(result.koais["statement"].to_list(), result.koais["user_id"].to_list(), world)
    assert set(result.koais["kind"]) <= set(KOAI_KINDS)
    assert result.koais.group_by("chunk_id").len()["len"].max() <= MAX_KOAIS
    _nothing_leaked(result.extractions["detail"].to_list(), result.extractions["user_id"].to_list(), world)


def test_rankings_are_numbers_whatever_the_summaries_order(world):
    """F13: the one prompt that holds other contributors' (masked) summaries can answer nothing but permutations."""
    chunks, secrets, people, _, _ = world
    summaries = summarise_with(Obedient(), summarise_subject(), chunks, max_failed_share=1.0).summaries
    rows = chunks.join(summaries.select("chunk_id", summary="text"), on="chunk_id").sort("chunk_id")
    n, size = rows.height, 5
    found = pl.DataFrame({
        "query": np.repeat(np.arange(n), size),
        "candidate": [(q + c) % n for q in range(n) for c in range(size)],
        "score": np.linspace(1, 0, n * size),
    })  # fmt: skip
    model = Obedient()
    result = ModelRanker(model).rank(CandidateLists(found, rows))
    for ranks in (result.likelihood, result.relevance):
        kept = ranks[~np.isnan(ranks)].reshape(-1, size)
        assert (np.sort(kept) == np.arange(1, size + 1)).all()
    assert set(result.unranked) <= {"not_a_ranking", "schema_violation", "malformed_json", "truncated"}
    assert _foreign(["\n".join(model.said.values())], [""], secrets)  # it did try
    assert all(isinstance(value, int | float) for value in result.stats.values())
    assert _names(["\n".join(request.messages[-1].content for request in model.prompts)], people) == 0


@pytest.mark.parametrize("ask", [summarise_with, extract_with])
def test_a_prompt_holds_one_contributors_text_and_no_name(world, ask):
    """C26, structure: whoever's chunk it is, no word of another contributor and no identifier is in the prompt."""
    chunks, secrets, people, planted, _ = world
    model = Obedient()
    ask(model, summarise_subject() if ask is summarise_with else extract_koai(), chunks, max_failed_share=1.0)
    prompts = ["\n".join(message.content for message in request.messages) for request in model.prompts]
    assert _foreign(prompts, [request.owner for request in model.prompts], secrets) == 0
    own = [secrets[request.owner].split()[0] in prompt for request, prompt in zip(model.prompts, prompts, strict=True)]
    assert all(own)
    assert _names(prompts, people) == 0 and not Finder(planted).whole("\n".join(prompts).encode())


class _Trusting(Obedient):
    """The control: prompts of all contributors together, answers taken as they are said."""

    def __init__(self, everything: str) -> None:
        super().__init__()
        self._everything = everything

    def complete(self, requests):
        from user_embeddings_dagster.language_models.protocol import Message

        for request in requests:
            more = Message("user", self._everything)
            request = type(request)((more, *request.messages), request.schema, request.owner, request.program)
            yield from super().complete([request])


def test_a_pipeline_without_the_filter_leaks(world):
    """The control: two contributors' unmasked text in one prompt, and no second masking, are found out."""
    _, secrets, people, planted, frame = world
    everything = "\n".join(frame["text"].tail(40))
    model = _Trusting(everything)
    requests = [
        summarise_subject().request({"chunk": [{"turn": 0, "speaker": "SUBJECT", "text": payload.text}]}, "0" * 32)
        for payload in PAYLOADS
    ]
    said = [str(answer.value) for answer in model.complete(requests) if isinstance(answer, Completion)]
    owners = ["0" * 32] * len(said)
    assert _foreign(said, owners, secrets) > 50 and _names(said, people) > 50
    assert Finder(planted).whole("\n".join(said).encode())
    assert [text for text in said if PLANTED.search(text)]
    raw = model.said.values()
    assert max(map(len, raw)) > MAX_ANSWER_CHARACTERS


def test_without_the_second_masking_what_an_order_plants_is_kept(world, monkeypatch):
    """The control of the re-masking alone."""
    from user_embeddings_dagster.summaries import build

    monkeypatch.setattr(build, "remasked", lambda texts: (texts, 0))
    texts = summarise_with(Obedient(), summarise_subject(), world[0], max_failed_share=1.0).summaries["text"]
    assert [text for text in texts if PLANTED.search(text)]


def test_a_statement_that_grows_by_the_second_masking_is_kept(world):
    """Placeholders may be longer than what they stand for: the bound is on what the model wrote."""

    class Wordy(Obedient):
        def complete(self, requests):
            statement = ("a@b.co " * 400)[:MAX_ANSWER_CHARACTERS]
            for request in requests:
                koai = {"kind": "opinion", "statement": statement, "evidence": [0]}
                yield Completion(request.id, {"koais": [koai]}, Usage())

    koais = extract_with(Wordy(), extract_koai(), world[0].head(3)).koais
    assert koais.height == 3 and koais["statement"].str.len_chars().min() > MAX_ANSWER_CHARACTERS
