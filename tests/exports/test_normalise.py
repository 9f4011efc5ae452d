"""Hashing in DuckDB against the one definition in `keys`."""

import polars as pl

from user_embeddings_dagster.exports.normalise import Normaliser
from user_embeddings_dagster.keys import keyed_id, user_id
from user_embeddings_dagster.schema import NATIVE_MESSAGES

KEY = bytes(range(200, 232))
IDS = ["t1_a", "", "ünï\U0001f642", "a" * 300, "x\0y", "'; DROP TABLE frame; --"]


def native(**columns) -> pl.DataFrame:
    base: dict[str, object] = {
        "native_thread": "t", "native_id": "i", "numbering": None, "native_parent": None, "native_author": "Ann",
        "author_name": None,
        "role": "user", "created_at": None, "edited_at": None, "text": "x", "media_kind": None, "community": None,
        "thread_shape": "tree", "is_owner": False, "is_public": True, "raw_sha256": "f", "raw_member": "",
        "raw_location": 1,
    }  # fmt: skip
    n = max((len(v) for v in columns.values()), default=1)
    return NATIVE_MESSAGES.conform(pl.DataFrame({k: [v] * n for k, v in base.items()} | columns))


def normaliser(links: dict[str, str] | None = None) -> Normaliser:
    return Normaliser("dao", KEY, links or {}, 1)


def test_ids_equal_keyed_id_for_any_text():
    """True HMAC-SHA-256, length-prefixed: the same ids as `keys.keyed_id`, null for null."""
    threads = [*IDS, "t"]
    frame = normaliser().messages(
        native(native_thread=threads, native_id=[*IDS[::-1], "i"], native_parent=[*IDS, None]), "reddit"
    )
    assert frame["message_id"].to_list() == [
        keyed_id(KEY, "message", "reddit", t, i) for t, i in zip(threads, [*IDS[::-1], "i"], strict=True)
    ]
    assert frame["thread_id"].to_list() == [keyed_id(KEY, "thread", "reddit", t) for t in threads]
    assert frame["parent_id"].to_list() == [*(keyed_id(KEY, "message", "reddit", t, t) for t in IDS), None]


def test_a_parents_parent_id_is_its_message_id():
    frame = normaliser().messages(native(native_id=["a", "b"], native_parent=[None, "a"]), "reddit")
    assert frame["parent_id"][1] == frame["message_id"][0]


def test_authors_ignore_case_and_follow_links():
    frame = normaliser({"ann": "p1"}).messages(native(native_author=["Ann", "ANN", "Bob", None]), "reddit")
    assert frame["author_id"].to_list() == [
        *[keyed_id(KEY, "contributor", "p1")] * 2, user_id(KEY, "reddit", "bob"), None,
    ]  # fmt: skip


def test_a_contributor_is_never_a_bot():
    frame = normaliser().messages(native(native_author=["a_bot", "a_bot"], is_owner=[True, False]), "reddit")
    assert frame["role"].to_list() == ["user", "bot"]


def test_no_native_identifier_is_left():
    secret = {"native_thread": ["THREAD"], "native_id": ["NATIVE"], "native_parent": ["PARENT"]}
    frame = normaliser().messages(native(**secret, native_author=["AUTHOR"], author_name=["NAME"]), "reddit")
    assert not [v for v in frame.row(0) if str(v) in ("THREAD", "NATIVE", "PARENT", "AUTHOR", "NAME")]
