"""F14: text from outside is no markup and steers no terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from user_embeddings_dagster.quality.escaping import code_block, printable

HOSTILE = "```\n[click](javascript:alert(1)) <img src=x onerror=alert(1)>\n\x1b[31m \u202egnp \0 \ud800"


def test_a_fence_in_the_text_does_not_end_the_block():
    """Control: the fence that stood here before is ended by the text's own."""
    lines = code_block(HOSTILE).split("\n")
    assert lines[0] == lines[-1] == "````"
    assert not any(line.startswith(lines[0]) for line in lines[1:-1])
    assert any(line.startswith("```") for line in f"```\n{HOSTILE}\n```".split("\n")[1:-1])


@given(st.text() | st.text("`\n\r\x1b\u202e"))
def test_no_text_ends_its_block_or_keeps_a_control_character(text):
    block = code_block(text)
    fence = block.split("\n", 1)[0]
    assert fence not in block[len(fence) : -len(fence)]
    assert not set(printable(text)) & set("\x1b\0\r\u202e\u2066\u200b")


@pytest.mark.parametrize("text", ["plain text, 1 < 2", "naïve 日本語 🙂", "a\tb\nc"])
def test_what_is_harmless_stays(text):
    assert printable(text) == text
