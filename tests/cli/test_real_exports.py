"""`user-embeddings real`: which exports are linked into the landing folder, and where nothing is replaced."""

import pytest


def exported(tmp_path, *names):
    for name in names:
        path = tmp_path / "exports" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def linked(tmp_path):
    """What every link of the landing folder leads to, by its place."""
    landing = tmp_path / "data" / "landing"
    found = sorted(path for path in landing.rglob("*") if path.is_symlink())
    return {str(path.relative_to(landing)): str(path.readlink().relative_to(tmp_path / "exports")) for path in found}


def test_exports_are_linked_by_what_their_pattern_matches(real, tmp_path):
    """Every Telegram export is a result.json. What lay at the top before lies there still: a name tells an account."""
    exported(tmp_path, "ann/result.json", "bob/result.json", "tg/c.json", "tg/consent.csv", "tg/.DS_Store")
    assert real(None, "both=*/result.json", "tg=tg/*", "tg=bob/*")[0] == 0
    assert linked(tmp_path) == {
        "both/ann/result.json": "ann/result.json", "both/bob/result.json": "bob/result.json",
        "tg/c.json": "tg/c.json", "tg/consent.csv": "tg/consent.csv", "tg/result.json": "bob/result.json",
    }  # fmt: skip
    assert not (tmp_path / "data" / "landing" / "tg" / "datadao.json").exists()


@pytest.mark.parametrize(
    ("corpora", "message"),
    [
        (["tg=ann/*.json", "tg=bob/*.json"], "tg/result.json would be both"),
        (["tg=*/result.json", "up=../*.json"], "up=../*.json: expected a pattern below --exports"),
        (["tg=*/result.json", "top=/exports/*.json"], "top=/exports/*.json: expected a pattern below --exports"),
        (["tg=*/result.json", "x=**.json"], "'**' can only be"),
        (["tg=*/result.json", "x=."], "x=.: expected a pattern below --exports"),
    ],
)
def test_patterns_that_cannot_be_meant_link_nothing(real, tmp_path, corpora, message):
    exported(tmp_path, "ann/result.json", "bob/result.json")
    status, started, error = real(None, *corpora)
    assert (status, started) == (2, []) and message in error and not (tmp_path / "data").exists()


def test_a_contributors_drop_is_not_replaced(real, tmp_path):
    drop = tmp_path / "data" / "landing" / "some" / "a.json"
    drop.parent.mkdir(parents=True)
    drop.write_text("the only copy")
    status, started, error = real()
    assert (status, started) == (2, []) and str(drop) in error and "nothing was replaced" in error
    assert drop.read_text() == "the only copy"
