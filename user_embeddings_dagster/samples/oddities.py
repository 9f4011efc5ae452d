"""What real exports suffer from, planted on purpose and counted."""

import hashlib
import re
from collections import Counter
from random import Random

from user_embeddings_dagster.samples.bank import phrases
from user_embeddings_dagster.samples.dialogue import Dialogue, Thread, Turn

_CARDS = ("4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005", "6011 1111 1111 1117", "4242424242424242")
_IBANS = (
    "DE89 3704 0044 0532 0130 00",
    "GB82WEST12345698765432",
    "FR14 2004 1010 0505 0001 3M02 606",
    "NL91ABNA0417164300",
)
_BTC = (
    "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
    "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq",
    "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
)
_NETWORKS = ("192.0.2", "198.51.100", "203.0.113")  # RFC 5737: for documentation
_PII = {
    "email": (
        "{mail me at|reach me on|drop a line to} #",
        "{receipt goes to|it's} # {if you want the file|btw}",
        "my address is #, {in case|feel free}",
    ),
    "phone": ("{call|text|ring} me on # {after six|if you're lost|tomorrow}", "my number is #", "{whatsapp|signal}: #"),
    "ip": ("the {box|server|printer} sits at #", "{I keep getting|log shows} connections from #", "can you ping #?"),
    "btc": ("{tips welcome|if you want to chip in}: #", "send it to # and I'll split it"),
    "eth": ("my wallet is #", "{airdrop|refund} should go to #", "{deposit|payout} address: #"),
    "card": ("the shop saved my card # {without asking|, ugh}", "I typed # into the form and it {declined|hung}"),
    "iban": (
        "{transfer|wire} your share to #",
        "account for the group order: #",
        "IBAN is #, {reference your name|no rush}",
    ),
}
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")
_SCRIPTS = {
    "cyrillic": "\u0400-\u04ff",
    "arabic": "\u0600-\u06ff",
    "devanagari": "\u0900-\u097f",
    "han": "\u4e00-\u9fff",
}


def pii_value(rng: Random, kind: str, first: str, last: str) -> str:
    """An invented identifier of `kind` from ranges that are reserved for documentation or tests."""
    name = "".join(
        c for c in f"{first}.{last or rng.randrange(90)}".lower() if c.isascii() and (c.isalnum() or c == ".")
    )
    match kind:
        case "email":
            return f"{name.strip('.') or 'me'}@{rng.choice(('example.com', 'mail.example.org', 'example.net'))}"
        case "phone":
            area, line = rng.choice(("202", "415", "617")), rng.randrange(100, 200)
            return rng.choice(
                (f"+1 {area} 555 0{line}", f"({area}) 555-0{line}", f"{area}-555-0{line}", f"+1{area}5550{line}")
            )
        case "ip":
            return f"{rng.choice(_NETWORKS)}.{rng.randrange(1, 255)}"
        case "btc":
            return rng.choice(_BTC)
        case "eth":
            return "0x" + hashlib.sha256(f"{name}{rng.random()}".encode()).hexdigest()[:40]
        case "card":
            return rng.choice(_CARDS)
        case _:
            return rng.choice(_IBANS)


def pii_sentence(rng: Random, dialogue: Dialogue, kind: str, first: str, last: str) -> str:
    """A sentence that gives away an identifier of `kind`."""
    text = dialogue.grammar.expand(rng.choice(_PII[kind]), {})
    return text.replace("#", pii_value(rng, kind, first, last)).replace(" ,", ",") + "."


def plant_pii(rng: Random, dialogue: Dialogue, turn: Turn, tally: Counter[str]) -> None:
    """Append a sentence with an identifier to `turn`."""
    if turn.person is None or not turn.text or turn.text.endswith("```"):
        return
    kind = rng.choice(sorted(_PII))
    turn.text += " " + pii_sentence(rng, dialogue, kind, turn.person.first, turn.person.last)
    tally[f"pii_{kind}"] += 1


def _near(rng: Random, text: str) -> str:
    words = text.split(" ")
    place = rng.randrange(len(words))
    words[place] = words[place].upper() if words[place].islower() else words[place].lower() + ","
    return " ".join(words) + rng.choice((" (sorry, resending)", " !!", " - anyone?"))


def plant(rng: Random, dialogue: Dialogue, threads: list[Thread], tally: Counter[str], floor: int = 7) -> None:
    """Edits, identifiers, double posts, near duplicates and clock skew over the turns of `threads`, in place.

    One turn in 90, and `floor` at the least, gets an identifier.
    """
    plain = [turn for thread in threads for turn in thread.turns]
    marked = set(rng.sample(range(len(plain)), min(len(plain), max(floor, len(plain) // 90))))
    for index, turn in enumerate(plain):
        if index in marked:
            plant_pii(rng, dialogue, turn, tally)
        if rng.random() < 0.05 and turn.person:
            turn.edited = turn.at + rng.randrange(20, 5_000)
            tally["edits"] += 1
            if rng.random() < 0.3 and "```" not in turn.text:
                bound = turn.person.life | {"weekday": rng.choice(phrases()["weekdays"])}
                turn.text += "\n\n" + dialogue.grammar.say(phrases()["edit_mark"], bound)
    _mention_in_han(threads, tally)
    for kind in ("exact_duplicates", "near_duplicates", "clock_skew"):
        for thread in rng.sample(threads, max(1, len(threads) // 40)):
            _double(rng, thread, kind, tally)


def _mention_in_han(threads: list[Thread], tally: Counter[str]) -> None:
    """A name in Han characters inside a sentence without spaces, where its bearer takes part."""
    for thread in threads:
        names = [t.person.first for t in thread.turns if t.person and re.match("[\u4e00-\u9fff]", t.person.first)]
        others = [t for t in thread.turns if t.person and t.person.first not in names and "```" not in t.text]
        if names and others:
            others[-1].text += f" 要不你去问{names[0]}吧，{names[0]}懂这个。"
            tally["han_names_inside_text"] += 1


def _double(rng: Random, thread: Thread, kind: str, tally: Counter[str]) -> None:
    replies = [turn for turn in thread.turns if turn.parent is not None and turn.person and len(turn.text) > 40]
    if not replies:
        return
    turn = rng.choice(replies)
    if kind == "clock_skew":
        if turn.parent is not None:
            turn.at = thread.turns[turn.parent].at - rng.randrange(5, 900)
    else:
        text = turn.text if kind == "exact_duplicates" else _near(rng, turn.text)
        copy = Turn(turn.person, text, turn.at + rng.randrange(4, 90), turn.parent, turn.act, marks={kind})
        thread.turns.append(copy)
    tally[kind] += 1


def tally_texts(texts: list[str], tally: Counter[str]) -> None:
    """Count texts with emoji, with other scripts, and empty ones."""
    tally["emoji"] += sum(bool(_EMOJI.search(text)) for text in texts)
    tally["empty_texts"] += sum(not text for text in texts)
    for script, span in _SCRIPTS.items():
        found = re.compile(f"[{span}]")
        tally[f"script_{script}"] += sum(bool(found.search(text)) for text in texts)
