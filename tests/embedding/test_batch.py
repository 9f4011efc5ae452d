"""embed_table: nothing twice, nothing stale, and the same bits wherever a run was killed."""

import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from user_embeddings_dagster.embedding.batch import embed_table
from user_embeddings_dagster.embedding.text_encoder import TextEncoder
from user_embeddings_dagster.storage.lance_tables import LanceTables


class Recorder(TextEncoder):
    """A base encoder that remembers the texts of each call and can be killed at one."""

    def __init__(self, dies_at: int | None = None, **settings) -> None:
        super().__init__(threads=1, precision="float32", **settings)
        self.calls: list[list[str]] = []
        self.dies_at = dies_at

    def encode(self, texts: Sequence[str], progress=None) -> np.ndarray:
        if len(self.calls) == self.dies_at:
            os._exit(9)
        self.calls.append(list(texts))
        return super().encode(texts, progress)


def frame(n: int, edited: int | None = None) -> pl.DataFrame:
    texts = [f"SUBJECT: note {i} " + "about bread and rye " * (i % 7) for i in range(n)]
    if edited is not None:
        texts[edited] += " (edited)"
    return pl.DataFrame({"id": [f"{i * 7919 % 997:032x}" for i in range(n)], "text": texts}).with_columns(
        user_id=pl.lit("u"),
        ended_at=pl.lit(datetime(2024, 1, 1, tzinfo=UTC), dtype=pl.Datetime("us", "UTC")),
    )


def test_second_run_embeds_nothing(tmp_path: Path) -> None:
    tables = LanceTables(tmp_path)
    first = embed_table(frame(40), Recorder(), tables, "dao", "chunk_embeddings", shard_rows=16)
    assert (first.embedded, first.reused, first.deleted, first.rows) == (40, 0, 0, 40)
    encoder = Recorder()
    second = embed_table(frame(40)[::-1], encoder, tables, "dao", "chunk_embeddings", shard_rows=16)
    assert (second.embedded, second.reused, second.content_hash) == (0, 40, first.content_hash)
    assert encoder.calls == []
    _, vectors = tables.vectors("dao", "chunk_embeddings")
    texts = frame(40).sort("id")["text"].to_list()
    np.testing.assert_allclose(vectors, TextEncoder(threads=1, precision="float32").encode(texts), atol=2e-6)


def test_only_new_and_changed_texts_are_embedded_and_stale_rows_go(tmp_path: Path) -> None:
    tables = LanceTables(tmp_path)
    embed_table(frame(30), Recorder(), tables, "dao", "t", shard_rows=16)
    encoder = Recorder()
    wanted = frame(35, edited=3)[2:]
    result = embed_table(wanted, encoder, tables, "dao", "t", shard_rows=16)
    assert sorted(text for call in encoder.calls for text in call) == sorted(
        wanted["text"].gather([1, *range(28, 33)]).to_list()
    )
    assert (result.embedded, result.reused, result.deleted, result.rows) == (6, 27, 2, 33)
    assert tables.ids("dao", "t") == sorted(wanted["id"])


def test_another_encoder_version_embeds_again(tmp_path: Path) -> None:
    tables = LanceTables(tmp_path)
    embed_table(frame(5), Recorder(), tables, "dao", "t")
    other = Recorder(max_tokens=64)
    assert embed_table(frame(5), other, tables, "dao", "t").embedded == 5
    assert tables.ids("dao", "t", other.version) == tables.ids("dao", "t")


def test_killed_run_continues_to_the_same_bits(tmp_path: Path) -> None:
    """C70: kill -9 between two shards, run again: the content hash of an undisturbed run."""
    dies_at = 1
    whole = embed_table(frame(40), Recorder(), LanceTables(tmp_path / "a"), "dao", "t", shard_rows=16)
    _run_killed(tmp_path / "b", dies_at)
    survivor = LanceTables(tmp_path / "b")
    assert survivor.count("dao", "t") == dies_at * 16
    encoder = Recorder()
    result = embed_table(frame(40), encoder, survivor, "dao", "t", shard_rows=16)
    assert result.content_hash == whole.content_hash
    assert len(encoder.calls) == 3 - dies_at


def _run_killed(root: Path, dies_at: int) -> None:
    """Run embed_table in a process of its own that dies, without any clean-up, at one shard."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from test_batch import Recorder, frame, embed_table, LanceTables\n"
        "embed_table(frame(40), Recorder(int(sys.argv[3])), LanceTables(Path(sys.argv[2])), 'dao', 't',"
        " shard_rows=16)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(root), str(dies_at)]
    assert subprocess.run(command).returncode == 9


def test_repeated_ids_are_refused(tmp_path: Path) -> None:
    doubled = pl.concat([frame(3), frame(1)])
    with pytest.raises(ValueError, match="repeated"):
        embed_table(doubled, Recorder(), LanceTables(tmp_path), "dao", "t")


def test_no_rows_make_no_table(tmp_path: Path) -> None:
    result = embed_table(frame(0), Recorder(), LanceTables(tmp_path), "dao", "t")
    assert (result.rows, result.embedded) == (0, 0)


def test_progress_counts_over_shards(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    embed_table(
        frame(20),
        Recorder(),
        LanceTables(tmp_path),
        "dao",
        "t",
        shard_rows=8,
        progress=lambda *a: seen.append(a),
    )
    assert seen[-1] == (20, 20)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
