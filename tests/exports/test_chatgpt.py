"""C1, C3, C6, C7: ChatGPT's export zip, bare conversations, backend conversation and connector JSON."""

import json
import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from user_embeddings_dagster.exports import chatgpt, registry
from user_embeddings_dagster.exports.reader import RawFile, Rejected
from user_embeddings_dagster.schema import NATIVE_MESSAGES

REAL = Path(os.environ.get("USER_EMBEDDINGS_REAL_DATA", "/nonexistent")) / "chatgpt"
Read = tuple[pl.DataFrame, dict[str, int], list[Rejected]]


def _node(name: str, parent: str | None, role: str = "user", said: Any = None, at: Any = 1.7e9, **content: Any) -> dict:
    body = {"content_type": "text", "parts": [f"text of {name}" if said is None else said]} | content
    message = {"id": name, "author": {"role": role}, "create_time": at, "content": body}
    return {"id": name, "parent": parent, "children": [], "message": message}


def _conversation(*nodes: dict, current: str | None = None, **more: Any) -> dict:
    mapping = {node["id"]: node for node in nodes}
    head = {"title": "t", "create_time": 1.6e9, "mapping": mapping, "current_node": current, "conversation_id": "c1"}
    return head | more


def _file(folder: Path, content: Any, name: str = "conversations.json") -> RawFile:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return RawFile(path, name, "0" * 64)


def _read(file: RawFile) -> Read:
    batches = list(chatgpt.read(file))
    skipped: dict[str, int] = {}
    for batch in batches:
        skipped = (
            {k: skipped.get(k, 0) + v for k, v in (skipped | dict(batch.skipped)).items()} if batch.skipped else skipped
        )
    messages = pl.concat([NATIVE_MESSAGES.conform(batch.messages) for batch in batches])
    return messages, skipped, [r for batch in batches for r in batch.rejected]


def test_only_the_current_branch_is_read(tmp_path: Path) -> None:
    """C3: the path of current_node to the root; a regenerated answer is counted, never mixed in."""
    root = {"id": "root", "parent": None, "children": ["q"], "message": None}
    nodes = (
        root,
        _node("q", "root"),
        _node("old", "q", "assistant"),
        _node("new", "q", "assistant"),
        _node("next", "new"),
    )
    messages, skipped, rejected = _read(_file(tmp_path, [_conversation(*nodes, current="next")]))
    assert messages.select("native_id", "native_parent").rows() == [("q", None), ("new", "q"), ("next", "new")]
    assert skipped == {"other_branch": 1} and not rejected
    assert messages["role"].to_list() == ["user", "assistant", "user"]
    assert messages["native_author"].to_list() == ["conversations.json", None, "conversations.json"]
    assert messages["is_owner"].to_list() == [True, False, True]
    assert set(messages["thread_shape"]) == {"tree"} and messages["native_thread"].to_list() == ["c1"] * 3


@pytest.mark.parametrize(
    ("nodes", "current", "path"),
    [
        ([_node("a", None, at=1), _node("b", "a", at=5), _node("c", "a", at=9)], None, ["a", "c"]),
        ([_node("a", None, at=1), _node("c", "a", at=9), _node("b", "a", at=5)], "gone", ["a", "c"]),
        ([_node("a", "b"), _node("b", "a")], "b", ["a", "b"]),
        ([_node("a", "b"), _node("b", "a")], None, ["a", "b"]),
        ([_node("a", "missing"), _node("b", "a")], "b", ["a", "b"]),
        ([_node("a", "a")], "a", ["a"]),
    ],
)
def test_odd_trees(tmp_path: Path, nodes: list[dict], current: str | None, path: list[str]) -> None:
    """C3: no current node (the newest leaf), cycles, missing parents."""
    messages, _, rejected = _read(_file(tmp_path, [_conversation(*nodes, current=current)]))
    assert messages["native_id"].to_list() == path and not rejected


def test_types_and_placeholders(tmp_path: Path) -> None:
    """C3: tool and system messages are typed; images and voice are placeholders with their kind."""
    image = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://secret", "width": 1}
    voice = {"content_type": "audio_transcription", "text": "spoken words", "direction": "in"}
    audio = {"content_type": "audio_asset_pointer", "asset_pointer": "sediment://secret"}
    cases = [
        (_node("0", None, "system", ""), "system", "", None),
        (_node("1", "0", content_type="user_editable_context", parts=None, user_profile="Preferred name: Zoe",
               user_instructions="be brief"), "system", "Preferred name: Zoe\nbe brief", None),
        (_node("2", "1", content_type="multimodal_text", parts=[image, "what is this?"]), "user",
         "[image]\nwhat is this?", "image"),
        (_node("3", "2", content_type="multimodal_text", parts=[voice, audio]), "user",
         "spoken words\n[voice]", "voice"),
        (_node("4", "3", "assistant", content_type="code", parts=None, text="print(1)"), "assistant",
         "print(1)", "code"),
        (_node("5", "4", "tool", content_type="execution_output", parts=None, text="1"), "tool", "1", None),
        (_node("6", "5", "tool", content_type="tether_browsing_display", parts=None, result="found"), "tool",
         "found", None),
        (_node("7", "6", "assistant", content_type="thoughts", parts=None, thoughts=[{"content": "hm"}]), "tool",
         "hm", None),
        (_node("8", "7", "assistant", "It is \ue200cite\ue202turn0search1\ue201so【4†source】, see "
               "\ue200url\ue202the page\ue202https://x\ue201."), "assistant", "It is so, see the page.", None),
    ]  # fmt: skip
    file = _file(tmp_path, [_conversation(*(case[0] for case in cases), current="8")])
    messages, _, rejected = _read(file)
    assert messages.select("role", "text", "media_kind").rows() == [case[1:] for case in cases] and not rejected
    assert "secret" not in str(messages.rows())
    names = pl.concat([batch.names for batch in chatgpt.read(file)])
    assert names.rows() == [("c1", "conversations.json", "Zoe", "display_name")]


def test_times_are_inherited(tmp_path: Path) -> None:
    nodes = [
        _node("a", None, at=None),
        _node("b", "a", at=1_700_000_000),
        _node("c", "b", at=0),
        _node("d", "c", at="x"),
    ]
    messages, _, _ = _read(_file(tmp_path, [_conversation(*nodes, current="d")]))
    first, later = (datetime.fromtimestamp(seconds, UTC) for seconds in (1.6e9, 1.7e9))
    assert messages["created_at"].to_list() == [first, later, later, later]


def _connector(payload: Any) -> dict:
    return {"requestedScopes": ["chatgpt.conversations"], "version": "2.0.0-playwright", "platform": "chatgpt",
            "exportSummary": {"count": 1}, "errors": [], "chatgpt.conversations": payload}  # fmt: skip


@pytest.mark.parametrize("shape", ["list", "object", "envelope"])
def test_connector(tmp_path: Path, shape: str) -> None:
    """C1: the connector's linear conversations, with ISO 8601 times."""
    message = {"id": "m1", "role": "user", "content": "hello", "content_type": "text", "model": None,
               "create_time": "2025-12-31T07:59:14.849Z"}  # fmt: skip
    answer = message | {"id": "m2", "role": "assistant", "content": "hi", "create_time": None}
    conversations = [{"id": "c9", "title": "t", "create_time": 1.7e9, "messages": [message, answer]}]
    payloads = {
        "list": conversations,
        "object": {"conversations": conversations, "total": 1},
        "envelope": {"$schema": "s", "scope": "chatgpt.conversations", "data": {"conversations": conversations}},
    }
    file = _file(tmp_path, _connector(payloads[shape]), "export.json")
    found = registry.detect(file)
    assert found is not None and found.name == "chatgpt"
    messages, skipped, rejected = _read(file)
    assert not rejected and not skipped
    assert messages.select("native_thread", "native_id", "native_parent", "role", "text").rows() == [
        ("c9", "m1", None, "user", "hello"),
        ("c9", "m2", "m1", "assistant", "hi"),
    ]
    assert messages["created_at"].to_list() == [datetime(2025, 12, 31, 7, 59, 14, 849000, UTC)] * 2


def test_zip_reads_only_the_account_of_user_json(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "user.json", json.dumps({"id": "user-1", "email": "zoe@example.org", "phone_number": "+1 555 0100"})
        )
        for number in range(2):
            conversation = _conversation(_node("a", None), current="a", conversation_id=f"c{number}")
            archive.writestr(f"conversations-00{number}.json", json.dumps([conversation]))
        archive.writestr("shared_conversations.json", "[]")
    file = RawFile(path, path.name, "0" * 64)
    assert chatgpt.matches(file)
    messages, _, rejected = _read(file)
    assert messages.select("native_thread", "native_author", "raw_member", "raw_location").rows() == [
        ("c0", "user-1", "conversations-000.json", 0),
        ("c1", "user-1", "conversations-001.json", 0),
    ]
    assert not rejected and "example.org" not in str(messages.rows())


def test_a_broken_conversation_costs_only_itself(tmp_path: Path) -> None:
    """C7: located by the conversation's index; the others are whole."""
    conversations = [_conversation(_node(f"n{i}", None), current=f"n{i}", conversation_id=f"c{i}") for i in range(30)]
    raw = json.dumps(conversations).encode()
    at = raw.index(b"text of n11")
    messages, _, rejected = _read(_file(tmp_path, raw[:at] + b'"\x00{' + raw[at + 3 :]))
    assert messages["native_thread"].to_list() == [f"c{i}" for i in range(30) if i != 11]
    assert [(r.location, r.reason) for r in rejected] == [(11, "malformed_json")]
    messages, _, rejected = _read(_file(tmp_path, raw[:at]))
    assert messages.height == 11 and [(r.location, r.reason) for r in rejected] == [(11, "truncated")]


_VALID = json.dumps(
    [
        _conversation(_node("a", None), _node("b", "a", "assistant"), current="b", conversation_id=f"c{i}")
        for i in range(3)
    ]
).encode()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bytes_become_rows_or_located_rejects(tmp_path: Path, data: st.DataObject) -> None:
    """C7: no content, however broken, raises; what is lost is located."""
    start = data.draw(st.integers(0, len(_VALID)))
    stop = data.draw(st.integers(start, min(len(_VALID), start + 80)))
    raw = _VALID[:start] + data.draw(st.binary(max_size=30)) + _VALID[stop:]
    raw = data.draw(st.sampled_from([raw, raw[:stop], raw[start:]]))
    messages, skipped, rejected = _read(_file(tmp_path, raw))
    assert all(r.location >= 0 for r in rejected)
    if raw == _VALID:
        assert messages.height == 6 and not rejected and not skipped


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="USER_EMBEDDINGS_REAL_DATA is not set")
@pytest.mark.parametrize(
    ("name", "threads", "rows", "users", "tools", "branches"),
    [
        ("chatgpt_1_conversation.zip", 1, 3, 1, 0, 0),
        ("chatgpt_5_conversations.zip", 5, 15, 5, 0, 2),
        ("looselips.conversations.json", 5, 10, 5, 0, 0),
        ("mitkury.conversations.json", 1, 5, 2, 0, 1),
        ("quentinous.zip", 2, 6, 3, 0, 0),
        ("realazthat.conversations.json", 1, 44, 8, 11, 0),
        ("sanand0.amazon-nova-model-strengths.json", 1, 7, 1, 1, 0),
        ("sanand0.csv-data-analysis-insights.json", 1, 5, 1, 1, 0),
        ("sanand0.node-js-network-libraries.json", 1, 7, 2, 0, 0),
    ],
)
def test_real_exports(name: str, threads: int, rows: int, users: int, tools: int, branches: int) -> None:
    """C1, C3: every real export has its documented counts, and nothing is rejected."""
    file = RawFile(REAL / name, name, "0" * 64)
    found = registry.detect(file)
    assert found is not None and found.name == "chatgpt"
    messages, skipped, rejected = _read(file)
    assert not rejected and messages.height == rows and messages["native_thread"].n_unique() == threads
    assert messages.filter(role="user").height == users == messages["is_owner"].sum()
    assert messages.filter(role="tool").height == tools
    assert skipped.get("other_branch", 0) == branches
    assert not messages["text"].str.contains("[\ue000-\uf8ff]").any()
    assert not messages["native_author"].str.contains("@").any()
