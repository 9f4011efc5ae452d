"""Folders, files and tables that are missing or damaged: named, and nobody withdrawn for them (C14)."""

from datetime import UTC, datetime

import dagster as dg
import pytest
from consent_chat import EVERYTHING, materialise, people, say
from served_assets import served

from assets import consent_ledger as module


def test_a_disk_that_is_not_mounted_withdraws_nobody_but_what_the_clock_ended(store, monkeypatch):
    """C14: the folder's absence is not taken for everybody's withdrawal, which would mark every model."""
    say(store, ann=EVERYTHING, bob=f"{EVERYTHING},2030-01-01")
    monkeypatch.setattr(module, "now", lambda: datetime(2029, 1, 1, tzinfo=UTC))
    materialise(store)
    assert set(map(frozenset, people(store).values())) == {frozenset({"ann", "bob"})}
    (store.layout.landing / "dao").rename(store.layout.landing.parent / "elsewhere")
    monkeypatch.setattr(module, "now", lambda: datetime(2030, 1, 1, tzinfo=UTC))
    with pytest.raises(dg.Failure, match="dao: no landing folder") as failed:
        materialise(store, [served("consent_ledger")])
    assert not failed.value.allow_retries
    assert set(map(frozenset, people(store).values())) == {frozenset({"ann"})}
    (store.layout.landing / "dao").mkdir()  # empty: how a DataDAO is taken out
    materialise(store, [served("consent_ledger")])
    assert set(map(frozenset, people(store).values())) == {frozenset()}


@pytest.mark.parametrize(
    ("name", "instead", "said"),
    [
        *((name, what, "no file") for name in ("consent.csv", "datadao.json", "contributors.csv")
          for what in ("link", "folder")),
        ("contributors.csv", "contributor,account\nann,x\nbob,x\n", "line 3: account of another contributor"),
    ],
)  # fmt: skip
def test_a_file_about_consent_that_is_none_withdraws_nobody(store, monkeypatch, name, instead, said):
    """A link to a disk that is not mounted, a folder, or what cannot be read: only what the clock ended is removed."""
    say(store, ann=EVERYTHING, bob=f"{EVERYTHING},2030-01-01")
    monkeypatch.setattr(module, "now", lambda: datetime(2029, 1, 1, tzinfo=UTC))
    materialise(store)
    path = store.layout.landing / "dao" / name
    path.unlink(missing_ok=True)
    if instead == "link":
        path.symlink_to(store.layout.root / "unmounted" / name)
    elif instead == "folder":
        path.mkdir()
    else:
        path.write_text(instead)
    for year, left in ((2029, {"ann", "bob"}), (2030, {"ann"})):
        monkeypatch.setattr(module, "now", lambda year=year: datetime(year, 1, 1, tzinfo=UTC))
        with pytest.raises(dg.Failure, match=f"dao/{name}.*{said}") as failed:
            materialise(store, [served("consent_ledger")])
        assert not failed.value.allow_retries
        assert set(map(frozenset, people(store).values())) == {frozenset(left)}


@pytest.mark.parametrize("file", ["table", "pointer"])
def test_a_damaged_table_is_named_and_not_read_as_other_rows(store, file):
    """Polars reads a table whose middle was overwritten without an error; the text of others' errors is withheld."""
    say(store, ann=EVERYTHING)
    materialise(store)
    table = store.lake.path("masked_chunks", "dao")
    damaged = table if file == "table" else table.with_name("current.json")
    content = damaged.read_bytes()
    damaged.write_bytes(content[:40] + bytes(40) + content[80:])
    with pytest.raises(dg.Failure, match="materialise masked_chunks/dao again") as failed:
        materialise(store, [served("chunk_summaries")])
    assert str(failed.value.description).startswith(f"{damaged}: damaged") and not failed.value.allow_retries
