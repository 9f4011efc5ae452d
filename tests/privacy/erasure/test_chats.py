"""Messages of the erased are cut out of Telegram chats, with their names, accounts and contact cards (F4)."""

import json
import random
import re
from itertools import pairwise
from unicodedata import normalize

import pytest

from user_embeddings_dagster.keys import user_id
from user_embeddings_dagster.privacy.erasure import raw_files
from user_embeddings_dagster.privacy.erasure.documents import Cut
from user_embeddings_dagster.privacy.erasure.raw_files import cut_out, search
from user_embeddings_dagster.privacy.redaction import Redaction

KEY = bytes(range(32))


def message(number: int, sender: str, text: object) -> dict:
    who = {"from": sender, "from_id": f"user{sum(map(ord, sender))}"}
    return {"id": number, "type": "message", "date": "2024-01-01T10:00:00", "date_unixtime": "1704103200"} | who | {
        "text": text
    }  # fmt: skip


def chat() -> dict:
    texts = [("Alice", "a"), ("Bob", "b"), ("Bob", ["hi ", {"type": "mention_name", "text": "Al", "user_id": 478}])]
    messages = [message(number, *pair) for number, pair in enumerate(texts)]
    return {"name": "group", "type": "public_supergroup", "id": 5, "messages": messages}


def test_a_persons_messages_are_cut_out_of_a_chat_and_so_is_what_points_at_them(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(chat(), indent=1))
    [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "telegram", "user478")]))
    assert (found.own, found.n_records, found.accounts) == (False, 1, {"user478"})
    assert cut_out(found, found.names)
    kept = json.loads(path.read_text())
    assert kept["messages"] == [chat()["messages"][1], chat()["messages"][2] | {"text": ["hi "]}]
    assert not list(search(tmp_path, KEY, frozenset([user_id(KEY, "telegram", "user478")])))


def test_a_name_or_account_that_is_a_key_is_replaced_in_a_chat(tmp_path):
    """F4: a number too, where it is an account; the fields by which readers read stay, though somebody is called so."""
    path, (first, *others) = tmp_path / "result.json", chat()["messages"]
    votes = {"Alice": 3, "user478": 1, "478": 2, "4780": 4, "Bob": {"alice": [{"ALICE": 0}]}}
    content = chat() | {"votes": votes, "messages": [first, others[0] | {"votes": votes}]}
    path.write_text(json.dumps(content))
    [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "telegram", "user478")]))
    names = {("Date From", "display_name"), ("text", "handle"), ("messages", "handle"), *found.names}
    assert cut_out(found, names)
    kept = json.loads(path.read_text())
    left = {"<PERSON>": 3, "<PERSON> 2": 1, "<PERSON> 3": 2, "4780": 4, "Bob": {"<PERSON>": [{"<PERSON>": 0}]}}
    assert kept["votes"] == left
    assert kept["messages"] == [others[0] | {"votes": left}]


def test_the_number_on_a_persons_contact_card_is_cut_out(tmp_path):
    """Also where the card names no account; that of somebody with another surname stays."""
    cards = [{"first_name": first, "last_name": last, "phone_number": "+1 415 555 2671"} for first, last in CARDS]
    path = tmp_path / "result.json"
    sent = [message(9 + n, "Bob", "") | {"contact_information": card} for n, card in enumerate(cards)]
    people = {"contacts": {"list": cards}, "chats": {"list": [chat() | {"messages": [*chat()["messages"], *sent]}]}}
    path.write_text(json.dumps(people))
    [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "telegram", "user478")]))
    assert cut_out(found, found.names)
    kept = json.loads(path.read_text())
    left = [card["contact_information"] for card in kept["chats"]["list"][0]["messages"][2:]]
    assert left == kept["contacts"]["list"]
    assert [card["phone_number"] == "" for card in left] == [True, True, False, False]


@pytest.mark.parametrize("block", [1 << 20, 7])
def test_an_account_is_found_where_its_person_wrote_nothing(block, tmp_path, monkeypatch):
    """Among another's contacts, and beside what was forwarded."""
    monkeypatch.setattr(raw_files, "_BLOCK", block)
    path = tmp_path / "result.json"
    sent = message(1, "Bob", "fine") | {"forwarded_from": "Alice", "forwarded_from_id": "user478"}
    contact = {"user_id": 478, "first_name": "Alice", "phone_number": "+1 415 555 2671"}
    for contacts, message_sent in (([contact], message(1, "Bob", "fine")), ([], sent)):
        people = {"contacts": {"list": contacts}, "chats": {"list": [chat() | {"messages": [message_sent]}]}}
        path.write_text(json.dumps(people))
        [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "telegram", "user478")]))
        assert (found.own, found.n_records, found.accounts) == (False, 0, {"user478"})
        assert cut_out(found, {("Alice", "display_name")})
        assert not [trace for trace in ("478", "Alice", "415") if trace in path.read_text()]
        assert not list(search(tmp_path, KEY, frozenset([user_id(KEY, "telegram", "user478")])))


CARDS = [("Alice", ""), ("", "alice 🌸"), ("Alice", "Smith"), ("Bob", "")]


def bold(text: str, **more: str) -> dict:
    return {"type": "bold", "text": text} | more


def joined(text: str | list) -> str:
    return text if isinstance(text, str) else "".join(p if isinstance(p, str) else p["text"] for p in text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (["ask Ann", bold("a Smithers"), " now"], ["ask <PERSON>", bold(""), " now"]),
        (["ask ", bold("Smit"), bold("hers"), "’s dog"], ["ask ", bold("<PERSON>"), bold(""), "’s dog"]),
        (
            ["Ａnn", bold("a"), " and ＡＢ and ", bold("an"), "na"],
            ["<PERSON>", bold(""), " and ＡＢ and ", bold("<PERSON>"), ""],
        ),
        ([bold("A", href="https://x.de/b"), "nna"], [bold("<PERSON>", href="https://x.de/b"), ""]),
        (["Ban", bold("ana"), " and S", bold("mith")], ["Ban", bold("ana"), " and S", bold("mith")]),
        (["Anna", bold("bel")], ["<PERSON>", bold("bel")]),
    ],
)
def test_a_name_over_several_parts_of_a_text_is_replaced(text, left, tmp_path):
    """F4: Telegram writes bold and linked words apart; people read one text, and so does whoever looks for a name."""
    path = tmp_path / "result.json"
    entities = [p if isinstance(p, dict) else {"type": "plain", "text": p} for p in text]
    by_bob = message(2, "Bob", text) | {"text_entities": entities, "poll": {"question": text, "answers": []}}
    content = {"name": "g", "type": "private_group", "id": 5, "messages": [message(1, "Anna Smithers", "hi"), by_bob]}
    path.write_text(json.dumps(content))
    [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "telegram", f"user{sum(map(ord, 'Anna Smithers'))}")]))
    assert cut_out(found, found.names)
    [kept] = json.loads(path.read_text())["messages"]
    assert kept["text"] == left and kept["poll"]["question"] == left
    assert [p["text"] for p in kept["text_entities"]] == [p if isinstance(p, str) else p["text"] for p in left]


def test_no_name_is_left_however_a_text_is_cut_into_parts():
    """F4: 400 texts cut at random places, also inside of letters and their accents; joined, no name is in them."""
    draw, names = random.Random(0), ["Anna Smithers", "Zoë O'Neil", "王小明", "Jo . Li", "anna_s", "김민수"]
    redaction = Redaction([(name, "display_name") for name in names])
    words = [
        *names,
        *map(str.upper, names),
        *["zoe\u0308", "Annabel", "é", "e\u0301", "問", ", ", ": ", "@", " "],
    ]
    spoken = re.compile(r"王小明|김민수|\b(?:smithers|anna_s)\b", re.IGNORECASE)
    found = 0
    for _ in range(400):
        whole = "".join(draw.choice(words) for _ in range(draw.randint(1, 6)))
        cuts = sorted(draw.randint(0, len(whole)) for _ in range(draw.randint(1, 4)))
        parts = [whole[a:b] for a, b in pairwise([0, *cuts, len(whole)])]
        text = [part if draw.random() < 0.5 else bold(part) for part in parts]
        left = joined(Cut("messages", set(), set(), redaction).value({"text": text}, in_message=True)["text"])
        assert redaction.text(left) == left, ascii(text)
        assert not spoken.search(normalize("NFC", left)), ascii(text)
        found += whole != left
        alone = joined([redaction.text(part) for part in parts])
        assert left == whole or alone != whole or normalize("NFC", left) == normalize("NFC", redaction.text(whole))
    assert 267 < found < 400


def test_a_damaged_chat_that_cannot_be_rewritten_is_removed(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(chat(), indent=1)[:-20])
    [found] = search(tmp_path, KEY, frozenset([user_id(KEY, "telegram", "user478")]))
    assert not cut_out(found, found.names) and list(tmp_path.iterdir()) == []
