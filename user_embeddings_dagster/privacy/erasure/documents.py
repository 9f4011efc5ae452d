"""A JSON document that others contributed, without a person: their messages, entries of their accounts, their names.

Telegram writes a text with bold or linked words as a list of parts. A name may run over several of them: it is looked
for in the text that they make together, as people read it.
"""

from typing import Any

from user_embeddings_dagster.privacy.redaction import PERSON, Redaction

_IN_PARTS = ("text", "text_entities", "question", "caption")  # keys under which a list is one text
FIELDS = frozenset([*_IN_PARTS, "user_id", "first_name", "last_name", "phone_number"])
"""Keys by which a document is cut."""


class Cut:
    """A JSON document without the messages at some locations, entries of some accounts, and names."""

    def __init__(self, key: str, gone: set[int], accounts: set[str], redaction: Redaction) -> None:
        """`key` of the arrays of messages; `gone`: locations, counted in document order as readers do."""
        self._key, self._gone, self._redaction, self._location = key, gone, redaction, 0
        numbers = {account.removeprefix("user") for account in accounts}
        self._accounts = numbers | accounts

    def value(self, value: Any, in_message: bool = False) -> Any:
        """The value without them."""
        if isinstance(value, list):
            return [self.value(item, in_message) for item in value if not self._is_of_person(item)]
        if not isinstance(value, dict):
            return self._redaction.value(value)
        shown = value | {"phone_number": ""} if self._is_card(value) else value
        keys = self._redaction.keys(shown, self._accounts)
        return {keys[name]: self._member(name, item, in_message) for name, item in shown.items()}

    def _is_card(self, item: dict[str, Any]) -> bool:
        """A contact of the person's name and no other: mostly nothing else tells whose it is."""
        name = " ".join(str(item.get(part) or "") for part in ("first_name", "last_name"))
        left = self._redaction.text(name) if "phone_number" in item else name
        return left != name and not any(map(str.isalnum, left.replace(PERSON, "")))

    def _member(self, name: str, item: Any, in_message: bool) -> Any:
        if not isinstance(item, list):
            return self.value(item, in_message)
        if name == self._key and not in_message:
            return self._messages(item)
        return self._in_parts(item) if name in _IN_PARTS else self.value(item, in_message)

    def _messages(self, messages: list[Any]) -> list[Any]:
        first, self._location = self._location, self._location + len(messages)
        numbered = enumerate(messages, first)
        return [self.value(message, in_message=True) for place, message in numbered if place not in self._gone]

    def _is_of_person(self, item: Any) -> bool:
        return isinstance(item, dict) and str(item.get("user_id") or "") in self._accounts

    def _in_parts(self, parts: list[Any]) -> list[Any]:
        """Parts of one text; the part in which a name begins holds what it is replaced by."""
        kept = [part for part in parts if not self._is_of_person(part)]
        texts = list(map(_said, kept))
        kept = [_with(part, text) for part, text in zip(kept, self._redaction.parts(texts), strict=True)]
        kept = self.value(kept, in_message=True)  # links, and a name alone in its part
        whole = "".join(map(_said, kept))
        redacted = self._redaction.text(whole)
        return kept if redacted == whole else [{"type": "plain", "text": redacted}]


def _said(part: Any) -> str:
    """What a part adds to its text."""
    text = part.get("text") if isinstance(part, dict) else part
    return text if isinstance(text, str) else ""


def _with(part: Any, text: str) -> Any:
    """The part with another text."""
    if text == _said(part):
        return part
    return part | {"text": text} if isinstance(part, dict) else text
