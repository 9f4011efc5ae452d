"""C19: backups and cached answers hold nothing in clear; the scan with the keys, or of the same in clear, finds it."""

import sqlite3

import polars as pl
from sealed_platform import canaries, looked_at
from small_platform import person

from user_embeddings_dagster.privacy.audit.canaries import scan
from user_embeddings_dagster.privacy.backup.contents import LIST
from user_embeddings_dagster.privacy.sealed_format import MAGIC
from user_embeddings_dagster.storage.lake import Lake


def test_nothing_in_a_backup_is_in_clear_and_no_key_lies_in_it(layout, backup):
    """C19: names, texts, ids and names of files are found with the keys, and not without."""
    wanted = canaries(layout, person(layout))
    files = [path for path in backup.rglob("*") if path.is_file()]
    assert {path.name for path in files if path.parent == backup} == {LIST}
    assert all(path.read_bytes().startswith(MAGIC) for path in files if path.parent != backup)
    assert not scan(backup, wanted).hits
    found = looked_at(layout, backup, wanted)
    assert len(found.canaries) > 20 and not found.undecoded
    secrets = [path.read_text().strip() for path in (layout.key, layout.master_key)]
    with sqlite3.connect(layout.contributor_keys) as store:
        wrapped = [row[0] for row in store.execute("SELECT wrapped FROM keys").fetchall()]
    assert wrapped and not looked_at(layout, backup, [*secrets, *map(bytes.fromhex, secrets), *wrapped]).hits


def test_answers_of_a_language_model_are_not_in_clear_and_shredded_with_the_key(layout, tmp_path):
    """C19: nothing of an answer is in the cache's bytes. Control: the same answers in a store in clear are found."""
    users = person(layout)
    rows = Lake(layout.root).read("masked_chunks", "telegram").filter(pl.col("user_id").is_in(list(users)))
    middles = rows["text"].str.slice(rows["text"].str.len_chars().max() // 8, 40).to_list()
    wanted = [text for text in middles if len(text) == 40][:20]
    clear = tmp_path / "clear"
    clear.mkdir()
    with sqlite3.connect(clear / "answers.sqlite") as store:
        store.execute("CREATE TABLE answers (value TEXT)")
        store.executemany("INSERT INTO answers VALUES (?)", [(text,) for text in rows["text"]])
    assert len(wanted) > 5 and scan(clear, wanted).canaries == set(wanted)
    cache = layout.language_model_cache
    with sqlite3.connect(cache) as store:
        assert store.execute("SELECT count(*) FROM entries").fetchone()[0] > 20
    assert not scan(cache.parent, wanted).hits
