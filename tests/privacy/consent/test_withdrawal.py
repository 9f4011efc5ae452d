"""What happens to vectors, memories and models when consent ends (C14)."""

import numpy as np
import polars as pl
import pytest
from consent_rows import KEY

from benchmarks.consent import AT, ledger_of
from user_embeddings_dagster.privacy.consent.live import Consent, live
from user_embeddings_dagster.privacy.consent.withdrawal import mark_models, withdraw_memories, withdraw_vectors
from user_embeddings_dagster.privacy.lineage import subjects_of
from user_embeddings_dagster.storage.lake import write_json
from user_embeddings_dagster.storage.lance_tables import LanceTables
from user_embeddings_dagster.storage.manifest import finalise
from user_embeddings_dagster.storage.models import Models, TaintedModel
from user_embeddings_dagster.storage.user_memories import UserMemories


def test_vectors_of_who_withdrew_leave_no_byte(tmp_path):
    """C14, C15: the control is that they were found before."""
    lance, users = LanceTables(tmp_path), [f"{n:032x}" for n in range(6)]
    vectors = np.random.default_rng(0).normal(size=(6, 16)).astype(np.float32)
    rows = pl.DataFrame({"id": [f"c{user}" for user in users], "user_id": users, "version": "v"})
    lance.upsert("dao", "item_embeddings", rows.with_columns(vector=pl.Series(vectors)))
    states = pl.DataFrame({"id": users, "version": "v"}).with_columns(vector=pl.Series(vectors + 1))
    lance.upsert("dao", "user_embeddings", states)

    def found(vector: np.ndarray) -> int:
        return sum(path.read_bytes().count(vector.tobytes()[:24]) for path in tmp_path.rglob("*") if path.is_file())

    assert found(vectors[2]) and found(vectors[2] + 1)
    kept = pl.Series([user for user in users if user != users[2]])
    before = lance.read("dao", "item_embeddings", ["id", "vector"]).filter(pl.col("id") != f"c{users[2]}")
    for table in ("item_embeddings", "user_embeddings"):
        assert withdraw_vectors(lance, "dao", table, kept) == 1
        assert withdraw_vectors(lance, "dao", table, kept) == 0
    assert not found(vectors[2]) and not found(vectors[2] + 1)
    assert lance.read("dao", "item_embeddings", ["id", "vector"]).equals(before)
    assert found(vectors[3]) and found(vectors[3] + 1)


def test_memories_of_who_withdrew_are_overwritten(tmp_path):
    path, secret = tmp_path / "dao.sqlite", b"only-theirs" * 9
    with UserMemories(path) as memories:
        rows = [("a", "v", 1, "h"), ("b", "v", 1, "h")]
        memories.write(rows, np.frombuffer(secret + secret[::-1], np.uint8).reshape(2, -1).copy())
        assert withdraw_memories(memories, pl.Series(["b"])) == 1
        assert memories.users() == ["b"]
    assert secret not in path.read_bytes() and secret[::-1] in path.read_bytes()


def version(models: Models, encoder: str, name: str, data_version: str) -> None:
    folder = models.folder(encoder, name)
    folder.output.mkdir(parents=True)
    write_json(folder.output / "job.json", {"metadata": {}, "data_version": data_version})
    finalise(folder.output)


def test_models_trained_on_who_revoked_are_named_and_refused_until_they_consent_again(tmp_path):
    """C14: also those on its vectors, and those of which nobody knows whom they are trained on; no others."""
    models, users = Models(tmp_path), pl.DataFrame({"datadao": ["dao", "dao", "two"], "user_id": ["ann", "bob", "ann"]})
    for encoder, name, rows, basis in (
        ("item_encoder", "a", users, None), ("sequence_encoder", "b", users.clear(), "item_encoder"),
        ("other", "c", users.filter(user_id="bob"), None), ("third", "d", users.filter(datadao="two"), None),
    ):  # fmt: skip
        version(models, encoder, name, encoder)
        models.folder(encoder, name).note_subjects(subjects_of(KEY, rows))
        if basis:
            models.folder(encoder, name).note_basis(basis)
    version(models, "unknown", "e", "unknown")

    def marked(revoked: bool) -> list[str]:
        case = "revoked" if revoked else "granted"
        ledger = pl.concat([
            ledger_of({"ann": case, "bob": "granted"}, "train"),
            ledger_of({"ann": "granted"}, "train", datadao="two"),
        ])  # fmt: skip
        used, unused = mark_models(models, ledger, Consent(live(ledger, AT)), KEY)
        assert used == [], "none is promoted"
        return unused

    assert marked(False) == []
    assert marked(True) == ["item_encoder/a", "sequence_encoder/b", "unknown/e"]
    for encoder, name in (("item_encoder", "a"), ("sequence_encoder", "b"), ("unknown", "e")):
        again = (
            "materialise it again" if encoder == "unknown" else "train, then embed_items .* then train_sequence_encoder"
        )
        with pytest.raises(TaintedModel, match=f"consent revoked by people it was trained on: .*{again}"):
            models.promote(encoder, name)
        Models(tmp_path, release_tainted=True).promote(encoder, name)
    for encoder, name in (("other", "c"), ("third", "d")):
        models.promote(encoder, name)
    assert marked(False) == []
    models.promote("item_encoder", "a")
    models.folder("item_encoder", "a").taint(["somebody"])
    assert marked(False) == []
    with pytest.raises(TaintedModel, match="erased"):
        models.promote("item_encoder", "a")
