"""Text of messages made harmless inside a prompt (C26): what a person wrote is data and stays inside its field.

Inputs are written as JSON, which keeps quotes and line breaks inside their string. What is left to forge are the
markers between DSPy's fields, the control tokens of chat templates (a server reads them in any message) and lines
that look like a turn. They are broken by a space or a comma; the words stay.
"""

import re
from typing import Any

# Control, bidi, zero width, tag and variation characters, and lone surrogates, which no encoder of JSON takes.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)
_LINE_BREAK = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_OPENING = re.compile(
    r"\[(?=\[\s*#)"  # [[ ## field ## ]]
    r"|\[(?=/?[A-Z_]{3,40}\])"  # [INST], [/INST], [TOOL_CALLS]
    r"|<(?=[|｜<])"  # <|im_start|>, <｜User｜>, <<SYS>>
    r"|<(?=/?[a-z_]{1,40}>)"  # <s>, </think>, <start_of_turn>; placeholders such as <EMAIL> are upper case
)
_ROLE = re.compile(
    r"^([^\w\n<]{0,4}(?:<P\d{1,6}>|(?:SUBJECT|ASSISTANT|SYSTEM|USER|HUMAN|INSTRUCTIONS?|RESPONSE)\b)[^\w\n:：]{0,3})[:：]",
    re.MULTILINE | re.IGNORECASE,
)


def neutral(value: Any) -> Any:
    """`value` (JSON) with every string in it made harmless; doing it twice changes nothing more."""
    if isinstance(value, str):
        return neutral_text(value)
    if isinstance(value, dict):
        return {key: neutral(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [neutral(item) for item in value]
    return value


def neutral_text(text: str) -> str:
    """`text` without invisible characters, its markers broken; "SUBJECT: hello" becomes "SUBJECT, hello"."""
    text = _LINE_BREAK.sub("\n", _INVISIBLE.sub("", text))
    return _ROLE.sub(r"\1,", _OPENING.sub(lambda match: match[0] + " ", text))
