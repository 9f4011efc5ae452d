"""`user-embeddings trace`: records of which there is no table, no message or no chunk."""

import polars as pl

from user_embeddings_dagster import cli
from user_embeddings_dagster.schema import MASKED_CHUNKS, MESSAGES
from user_embeddings_dagster.storage.lake import Lake


def test_a_record_is_not_traced_before_there_are_tables(begun, capsys):
    assert cli.main([*begun, "trace", "some", "0" * 64, "1"]) == 2
    assert capsys.readouterr().err == "messages/some has not been materialised yet\n"


PLACE = {"raw_sha256": "5" * 64, "raw_member": "", "raw_location": 7}


def test_a_record_without_a_message_or_without_a_chunk_is_told(begun, tmp_path, capsys):
    """C7: before a training too."""
    row = {name: "" if dtype == pl.String else None for name, dtype in MESSAGES.schema.items()}
    row |= {"is_subject": True, "message_id": "a" * 32, **PLACE}
    lake = Lake(tmp_path / "data")
    lake.commit(MESSAGES, pl.DataFrame([row], MESSAGES.schema), "some")
    lake.commit(MASKED_CHUNKS, MASKED_CHUNKS.empty(), "some")
    for line, out, err in (("7", f"message {'a' * 32} in no chunk\n", ""), ("8", "", "no message was read there")):
        assert cli.main([*begun, "trace", "some", "5" * 64, line]) == 1
        said = capsys.readouterr()
        assert said.out == out and said.err.startswith(err)
