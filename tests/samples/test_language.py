"""The samples' language is varied: thresholds on repetition, with a templated twin that fails them."""

import json
import re
import zipfile
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from user_embeddings_dagster.samples import generate

# Thresholds a little below what the shipped banks reach (see the report of `figures`).
DISTINCT_5GRAMS = 0.7
NEAR_DUPLICATES = 0.04
TOP_SENTENCE = 0.004


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def sentences(text: str) -> list[str]:
    return [s.strip().lower() for s in re.split(r"[.!?\n]+", text) if len(s.split()) >= 4]


def figures(texts: list[str]) -> dict[str, float]:
    """Distinct share of word 5-grams, share of texts that nearly repeat an earlier one, share of the top sentence."""
    grams = [tuple(tokens[i : i + 5]) for tokens in map(words, texts) for i in range(len(tokens) - 4)]
    told = Counter(s for text in texts for s in sentences(text))
    return {
        "distinct_5grams": len(set(grams)) / len(grams),
        "near_duplicates": near_duplicate_share(texts),
        "top_sentence": max(told.values()) / told.total(),
    }


def near_duplicate_share(texts: list[str]) -> float:
    """Share of texts of eight words or more whose set of 3-grams has a Jaccard similarity of 0.8 to an earlier one."""
    by_gram: dict[tuple[str, ...], list[int]] = {}
    sets: list[set[tuple[str, ...]]] = []
    near = 0
    for text in texts:
        tokens = words(text)
        if len(tokens) < 8:
            continue
        grams = {tuple(tokens[i : i + 3]) for i in range(len(tokens) - 2)}
        shared = Counter(other for gram in grams for other in by_gram.get(gram, ()))
        near += any(n / (len(grams) + len(sets[other]) - n) >= 0.8 for other, n in shared.items())
        for gram in grams:
            by_gram.setdefault(gram, []).append(len(sets))
        sets.append(grams)
    return near / len(sets)


def telegram_texts(folder: Path) -> list[str]:
    """Distinct messages' texts of every Telegram export below `folder`."""
    found: dict[tuple[int, int], str] = {}
    for path in sorted(folder.rglob("result.json")):
        export = json.loads(path.read_text("utf-8"))
        for chat in export["chats"]["list"] if "chats" in export else [export]:
            for message in chat["messages"]:
                text = message["text"]
                whole = text if isinstance(text, str) else "".join(p if isinstance(p, str) else p["text"] for p in text)
                if message["type"] == "message" and whole:
                    found[chat["id"], message["id"]] = whole
    return list(found.values())


def chatgpt_texts(folder: Path) -> list[str]:
    """What people (not the assistant) wrote."""
    found = []
    for path in sorted(folder.rglob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            conversations = json.loads(archive.read("conversations.json"))
        nodes = [node["message"] for c in conversations for node in c["mapping"].values()]
        asked = [m for m in nodes if m and m["author"]["role"] == "user"]
        found += ["".join(p for p in m["content"]["parts"] if isinstance(p, str)) for m in asked]
    return [text for text in found if text]


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> dict[str, list[str]]:
    landing = tmp_path_factory.mktemp("landing")
    generate(landing)
    return {"telegram": telegram_texts(landing / "telegram"), "chatgpt": chatgpt_texts(landing / "chatgpt")}


@pytest.mark.parametrize("name", ["telegram", "chatgpt"])
def test_language_is_varied(texts, name):
    found = figures(texts[name])
    assert found["distinct_5grams"] >= DISTINCT_5GRAMS, found
    assert found["near_duplicates"] <= NEAR_DUPLICATES, found
    assert found["top_sentence"] <= TOP_SENTENCE, found


def test_a_handful_of_templates_fails_the_same_thresholds():
    """A twin that writes from six templates is caught by every threshold."""
    rng = Random(0)
    things = ["guitar", "bread", "run", "plot", "model", "job"]
    frames = [
        "I have a question about my {} and hope that somebody can help me.",
        "Has anybody here tried the {} before, and was it worth it?",
    ]
    found = figures([rng.choice(frames).format(rng.choice(things)) for _ in range(1_000)])
    assert found["distinct_5grams"] < DISTINCT_5GRAMS
    assert found["near_duplicates"] > NEAR_DUPLICATES
    assert found["top_sentence"] > TOP_SENTENCE


def test_no_pattern_shows_through(texts):
    """No slot, alternative or range of the banks is left unexpanded outside code."""
    for text in (t for found in texts.values() for t in found):
        prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
        if "```" in text or "{" in prose or "fn " in prose or "def " in prose or "=" in prose:
            continue
        assert not re.search(r"<[a-z]+2?>|<\d+-\d+>|~", prose), prose


def test_ten_messages_seldom_repeat_a_pattern(texts):
    """Among ten random messages, two rarely share five words in a row."""
    rng = Random(1)
    for found in texts.values():
        shared = 0
        for _ in range(300):
            grams = [{tuple(t[i : i + 5]) for i in range(len(t) - 4)} for t in map(words, rng.sample(found, 10))]
            shared += len(set().union(*grams)) < sum(map(len, grams))
        assert shared / 300 <= 0.1
