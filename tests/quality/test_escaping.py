"""F14: text from outside is no markup and steers no terminal."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from user_embeddings_dagster.quality.escaping import cell, code_block, csv_cell, label, line, printable

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


FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\0=1", " =1", '"=1', "＝1", "|cmd", '=HYPERLINK("x")')
LIVE = (
    "[click](javascript:alert(1))", "<img src=x onerror=alert(1)>", "![x](http://e.vil/p.png)", "https://e.vil",
    "www.e.vil", "a|b", "`code`", "``` ```", "**bold** __bold__", "_0_", "a _b_ c", "# title", "\\", "me@e.vil",
    "<script>", "&lt;", "a\nb", "a\u2028b", "\x1b[2J", "\u202egnp", "a\u200bb", "~~x~~", "[x]: http://e.vil",
)  # fmt: skip
UNSEEN = set("\n\r\t\x1b\0\u202e\u202d\u2066\u2067\u200b\u200e\u2028")


def html(markdown: str) -> str:
    """A table of one cell as a browser would get it."""
    from markdown_it import MarkdownIt

    browser = MarkdownIt("commonmark", {"html": True}).enable("table")
    return browser.render(f"| a |\n|---|\n| {markdown} |")


@pytest.mark.parametrize("text", LIVE)
def test_hostile_names_are_dead_in_a_table(text):
    """F14: no link, picture, HTML, further cell or control character."""
    shown = cell(text)
    assert not set(shown) & UNSEEN
    rendered = html(shown)
    assert rendered.count("<td>") == 1 and not re.search(r"<(a|img|script|strong|em|s|h\d)\b", rendered), rendered


def test_the_control_what_is_not_escaped_is_live():
    assert sum(bool(re.search(r"<(a|img|script|strong|em|h\d)\b", html(text))) for text in LIVE) >= 6
    assert sum(text.lstrip(' \t\r\0"').startswith(("=", "+", "-", "@")) for text in FORMULAS) >= 8


def test_a_name_with_underscores_inside_stays_plain():
    assert cell("item_encoder_v2 of user_7") == "item_encoder_v2 of user_7"


MARKUP = st.text("|`*_[]()<>!#&~\\=+-@\t\r\n\0\u202e a")


@settings(max_examples=2000)
@given(st.text() | MARKUP | st.tuples(st.sampled_from((*LIVE, *FORMULAS)), MARKUP).map("".join))
def test_no_name_is_live_wherever_it_stands(text):
    """F14: Hypothesis over every cell that names from outside reach."""
    rendered = html(cell(text))
    assert rendered.count("<td>") == 1 and not re.search(r"<(a|img|script|strong|em|h\d)\b", rendered)
    assert not set(cell(text)) & UNSEEN and not set(line(text)) & UNSEEN and not set(csv_cell(text)) & UNSEEN
    assert not csv_cell(text).lstrip(" '\"").startswith(("=", "+", "-", "@")) or csv_cell(text).startswith("'")
    assert "$" not in label(text).replace("\\$", "")


@pytest.mark.parametrize("text", FORMULAS)
def test_no_spreadsheet_takes_a_cell_for_a_formula(text):
    assert csv_cell(text).startswith("'")


@pytest.mark.parametrize(
    "text", ["item_encoder", "chatgpt", "next_chunk:a-b", "0.512", "history=10", "±30d", "gap<20min"]
)
def test_our_own_words_stay_readable(text):
    assert text in cell(text)
    assert csv_cell(text) == text
