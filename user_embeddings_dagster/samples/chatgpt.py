"""ChatGPT: export zips with conversations as trees, regenerated branches, tools, images and voice."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from user_embeddings_dagster.samples import archives
from user_embeddings_dagster.samples.bank import phrases
from user_embeddings_dagster.samples.dialogue import Dialogue, Thread, Turn
from user_embeddings_dagster.samples.oddities import pii_sentence, pii_value
from user_embeddings_dagster.samples.people import Person
from user_embeddings_dagster.samples.storyline import Session

_FOREIGN_OPEN = {
    "de": "Gerne! Hier sind die wichtigsten Punkte:",
    "es": "¡Claro! Estos son los puntos principales:",
    "fr": "Bien sûr ! Voici les points essentiels :",
    "pt": "Claro! Aqui estão os pontos principais:",
    "ru": "Конечно! Вот основные моменты:",
    "zh": "当然可以！以下是几个要点：",
    "ar": "بالتأكيد! إليك أهم النقاط:",
    "hi": "ज़रूर! मुख्य बातें ये हैं:",
}


_PAGE_END = ';\n    </script>\n  </head>\n  <body>\n    <div id="root"></div>\n  </body>\n</html>\n'


class Tree:
    """One conversation's mapping, grown node by node."""

    def __init__(self, rng: Random, at: int) -> None:
        self.rng = rng
        self.at = at + rng.random()
        self.mapping: dict[str, dict[str, Any]] = {}
        self.root = self._node(None, None)
        self.leaf = self.add(self.root, "system", {"content_type": "text", "parts": [""]}, timed=False)

    def _uuid(self) -> str:
        bits = f"{self.rng.getrandbits(128):032x}"
        return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"

    def _node(self, parent: str | None, message: dict[str, Any] | None) -> str:
        node = message["id"] if message else self._uuid()
        self.mapping[node] = {"id": node, "message": message, "parent": parent, "children": []}
        if parent:
            self.mapping[parent]["children"].append(node)
        return node

    def add(self, parent: str, role: str, content: dict[str, Any], timed: bool = True, name: str | None = None) -> str:
        """A new node under `parent`; without `timed` its time is null, as in system messages and some old exports."""
        self.at += self.rng.uniform(2, 9) if role != "user" else self.rng.uniform(20, 400)
        hidden = role == "system"
        metadata: dict[str, Any] = (
            {"is_visually_hidden_from_conversation": True}
            if hidden
            else {"timestamp_": "absolute", "message_type": None}
        )
        if role == "assistant":
            metadata |= {
                "model_slug": "gpt-4o",
                "default_model_slug": "auto",
                "parent_id": parent,
                "finish_details": {"type": "stop", "stop_tokens": [200002]},
            }
        message = {
            "id": self._uuid(),
            "author": {"role": role, "name": name, "metadata": {}},
            "create_time": round(self.at, 6) if timed else None,
            "update_time": None,
            "content": content,
            "status": "finished_successfully",
            "end_turn": True if role in ("assistant", "system") else None,
            "weight": 0.0 if hidden else 1.0,
            "metadata": metadata,
            "recipient": "all",
        }
        self.leaf = self._node(parent, message)
        return self.leaf

    def text(self, role: str, text: str, parent: str | None = None, timed: bool = True) -> str:
        """A plain text node under `parent` (default: the current leaf)."""
        return self.add(parent or self.leaf, role, {"content_type": "text", "parts": [text]}, timed)


class Assistant:
    """The assistant's side: advice of the stage, laid out the way an assistant does."""

    def __init__(self, rng: Random, dialogue: Dialogue) -> None:
        self.rng = rng
        self.dialogue = dialogue

    def reply(self, thread: Thread, opening: bool, asker: Person) -> str:
        """An answer of two to four points, numbered, bulleted or in prose."""
        rng, say = self.rng, self.dialogue.grammar.say
        bound = thread.bound | asker.life | {"other": "you", "weekday": rng.choice(phrases()["weekdays"])}
        wanted = rng.choice((2, 2, 3, 3, 4)) if opening else 2
        points = [p for p in (self.dialogue.line(thread, asker, "a", length=4.0) for _ in range(wanted)) if p]
        if not thread.language:
            points = [f"{p} {say(phrases()['assistant_why'], bound)}" if rng.random() < 0.3 else p for p in points]
        thread.turns.append(Turn(None, "", 0))  # so that the next answer starts afresh
        head = say(phrases()["assistant_open" if opening else "assistant_more"], bound)
        if thread.language:
            head = _FOREIGN_OPEN[thread.language]
        match rng.randrange(3):
            case 0:
                body = "\n".join(f"{n}. {point}" for n, point in enumerate(points, 1))
            case 1:
                body = "\n".join(f"- {point}" for point in points)
            case _:
                body = " ".join(points)
        tail = "" if thread.language or rng.random() < 0.5 else "\n\n" + say(phrases()["assistant_close"], bound)
        return f"{head}\n\n{body}{tail}"


def conversation(rng: Random, dialogue: Dialogue, session: Session, tally: Counter[str]) -> dict[str, Any]:
    """One conversation of `session`'s person, as a record of conversations.json."""
    person = session.person
    thread = dialogue.open(session, "", 0.75, chat=False)
    tree, assistant = Tree(rng, session.at), Assistant(rng, dialogue)
    null_times = rng.random() < 0.02
    tally["null_times"] += null_times
    for turn in range(rng.choice((1, 1, 2, 2, 3, 4))):
        text = thread.turns[0].text if not turn else _further(rng, dialogue, thread, person)
        if rng.random() < 0.012:
            kind = rng.choice(("email", "phone", "iban", "eth", "ip", "card", "btc"))
            text += "\n\n" + pii_sentence(rng, dialogue, kind, person.first, person.last)
            tally[f"pii_{kind}"] += 1
        asked = _ask(rng, tree, text, not null_times, tally)
        if rng.random() < 0.05:
            _tool(rng, tree, tally)
        tree.text("assistant", assistant.reply(thread, not turn, person), timed=not null_times)
        _branch(rng, tree, asked, assistant, dialogue, thread, person, tally)
    tally["nodes"] += sum(node["message"] is not None for node in tree.mapping.values())
    tally["conversations"] += 1
    tally["records"] += _told(tree)
    identifier = tree._uuid()
    return {
        "title": thread.title,
        "create_time": round(session.at + rng.random(), 6),
        "update_time": round(tree.at, 6),
        "mapping": tree.mapping,
        "moderation_results": [],
        "current_node": tree.leaf,
        "plugin_ids": None,
        "conversation_id": identifier,
        "conversation_template_id": None,
        "gizmo_id": None,
        "is_archived": False,
        "safe_urls": [],
        "default_model_slug": "auto",
        "id": identifier,
    }


def _told(tree: Tree) -> int:
    """Messages of a user, the assistant or a tool on the path from `current_node` to the root."""
    node, count = tree.leaf, 0
    while node:
        message = tree.mapping[node]["message"]
        count += bool(message and message["author"]["role"] != "system")
        node = tree.mapping[node]["parent"]
    return count


def _further(rng: Random, dialogue: Dialogue, thread: Thread, person: Person) -> str:
    kinds = [k for k in ("u", "u", "d", "f", "q") if k in thread.stage.lines]
    sentences = [dialogue.line(thread, person, rng.choice(kinds))]
    if rng.random() < 0.2 and not thread.language:
        bound = thread.bound | person.life | {"weekday": "", "other": "you"}
        sentences.insert(0, dialogue.grammar.say(phrases()["user_ack"], bound))
    thread.turns.append(Turn(person, "", 0))
    return dialogue.voice.message(person, [s for s in sentences if s], plain=thread.language is not None)


def _ask(rng: Random, tree: Tree, text: str, timed: bool, tally: Counter[str]) -> str:
    draw = rng.random()
    if draw > 0.06:
        return tree.text("user", text, timed=timed)
    asset = f"file-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    if draw < 0.035:
        tally["image_parts"] += 1
        pointer = {
            "content_type": "image_asset_pointer",
            "asset_pointer": f"file-service://{asset}",
            "size_bytes": 88_213,
            "width": 1024,
            "height": 768,
            "fovea": None,
            "metadata": None,
        }
        return tree.add(tree.leaf, "user", {"content_type": "multimodal_text", "parts": [pointer, text]})
    tally["voice_parts"] += 1
    spoken = {"content_type": "audio_transcription", "text": text, "direction": "in", "decoding_id": None}
    sound = {
        "content_type": "audio_asset_pointer",
        "asset_pointer": f"sediment://{asset}",
        "size_bytes": 53_760,
        "format": "wav",
        "metadata": {"start": 0.0, "end": 4.2},
    }
    return tree.add(tree.leaf, "user", {"content_type": "multimodal_text", "parts": [spoken, sound]})


def _tool(rng: Random, tree: Tree, tally: Counter[str]) -> None:
    first, second = rng.randrange(3, 90), rng.randrange(3, 90)
    code = {
        "content_type": "code",
        "language": "unknown",
        "response_format_name": None,
        "text": f"total = {first} * {second}\ntotal",
    }
    tree.add(tree.leaf, "assistant", code)
    tree.mapping[tree.leaf]["message"]["recipient"] = "python"
    tree.add(tree.leaf, "tool", {"content_type": "execution_output", "text": str(first * second)}, name="python")
    tally["tool_messages"] += 1


def _branch(
    rng: Random,
    tree: Tree,
    asked: str,
    assistant: Assistant,
    dialogue: Dialogue,
    thread: Thread,
    person: Person,
    tally: Counter[str],
) -> None:
    draw = rng.random()
    if draw < 0.07:  # regenerated: the first answer stays as a dead branch
        tree.text("assistant", assistant.reply(thread, False, person), parent=asked)
        tally["branches"] += 1
    elif draw < 0.1:  # the question was edited and asked again
        parent = tree.mapping[asked]["parent"]
        tree.text("user", _further(rng, dialogue, thread, person), parent=parent)
        tree.text("assistant", assistant.reply(thread, False, person))
        tally["branches"] += 1


def write_export(rng: Random, folder: Path, person: Person, conversations: Sequence[dict[str, Any]]) -> Path:
    """The export zip of `person`, newest conversation first."""
    user = {
        "id": person.chatgpt_id,
        "email": pii_value(rng, "email", person.first, person.last),
        "chatgpt_plus_user": rng.random() < 0.3,
        "phone_number": pii_value(rng, "phone", person.first, person.last).replace(" ", ""),
    }
    listed = sorted(conversations, key=lambda c: -c["update_time"])
    text = json.dumps(listed)
    page = "<html>\n  <head>\n    <title>ChatGPT Data Export</title>\n    <script>\n      var jsonData = "
    feedback = []
    if rng.random() < 0.2 and listed:
        feedback = [
            {
                "id": listed[0]["current_node"],
                "conversation_id": listed[0]["id"],
                "user_id": person.chatgpt_id,
                "rating": "thumbs_up",
                "create_time": "2024-08-20T10:00:00.000000Z",
                "content": "{}",
            }
        ]
    members = {
        "user.json": json.dumps(user),
        "conversations.json": text,
        "message_feedback.json": json.dumps(feedback),
        "model_comparisons.json": "[]",
        "chat.html": page + text + _PAGE_END,
    }
    digest = hashlib.sha256(person.chatgpt_id.encode()).hexdigest()
    path = folder / f"{digest[:40]}-2024-09-0{1 + person.number % 9}-10-00-00-{digest[40:56]}.zip"
    archives.write(path, archives.zipped(members))
    return path
