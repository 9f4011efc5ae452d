"""A raw record is followed to its chunks and to the scores that used them (C7)."""

import polars as pl

from user_embeddings_dagster.evaluation.splits import split_hash
from user_embeddings_dagster.evaluation.trace import chunks_of_record, scores_of_chunks
from user_embeddings_dagster.schema import SCORES

MESSAGES = pl.DataFrame(
    {"message_id": ["m1", "m2"], "raw_sha256": ["s", "s"], "raw_member": ["a.json", "a.json"], "raw_location": [4, 5]}
)
CHUNKS = pl.DataFrame({"chunk_id": ["c1", "c2", "c3"], "message_ids": [["m1", "m2"], ["m1"], ["m2"]]})
SNAPSHOT = pl.DataFrame(
    {"chunk_id": ["c1", "c2", "c3"], "datadao": ["zig", "zig", "zig"], "split": ["test", "test", "train"]}
)


def scores() -> pl.DataFrame:
    here = split_hash(SNAPSHOT)
    rows = [("zig", here), ("reddit", here), ("all", here), ("zig", "0" * 32)]
    frame = pl.DataFrame(
        [{"datadao": datadao, "split_hash": hashed, "model": f"m{n}"} for n, (datadao, hashed) in enumerate(rows)]
    )
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in SCORES.schema.items() if name not in frame.columns]
    return frame.with_columns(missing).select(list(SCORES.schema))


def test_a_record_leads_to_its_chunks():
    place = {"raw_sha256": "s", "raw_member": "a.json"}
    found = chunks_of_record(MESSAGES, CHUNKS.lazy(), **place, raw_location=4)
    assert found.rows() == [("m1", "c1"), ("m1", "c2")]
    assert chunks_of_record(MESSAGES, CHUNKS, **place, raw_location=9).is_empty()


def test_chunks_lead_to_the_scores_of_their_snapshot_with_their_role():
    """Test chunks count for their own DataDAO and for 'all'; trained ones for all of the snapshot."""
    tested = scores_of_chunks(["c1", "c2"], SNAPSHOT, scores())
    assert tested.select("role", "datadao").rows() == [("evaluated on", "all"), ("evaluated on", "zig")]
    trained = scores_of_chunks(["c3"], SNAPSHOT, scores())
    assert trained["role"].unique().to_list() == ["trained on"]
    assert sorted(trained["datadao"]) == ["all", "reddit", "zig"]
    assert scores_of_chunks(["elsewhere"], SNAPSHOT, scores()).is_empty()
    assert scores_of_chunks(["c1"], SNAPSHOT.with_columns(split=pl.lit("test")), scores()).is_empty()
