"""Grants of the erased are cut out of consent.csv, and of nobody else (C15)."""

import pytest
from consent_rows import HEADER, KEY, someone

from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erasure.journal import Journal
from user_embeddings_dagster.privacy.erasure.raw_files import UnreadableGrants, cut_grants
from user_embeddings_dagster.privacy.erasure.stores import erase_landing
from user_embeddings_dagster.settings import Layout


def test_erasure_cuts_the_grants_of_one_person_and_leaves_the_bytes_of_the_others(tmp_path):
    """C15: also of a row that is too short to be read, which must not become readable."""
    rest = '2,reddit:bob,,train,"2024-01-01"\r\n3, reddit:cat ,,serve,2024-01-01,,\n'
    (tmp_path / "consent.csv").write_text(HEADER + "1,reddit:ann,,train,2024-01-01,,\n" + rest, newline="")
    assert cut_grants(tmp_path, KEY, frozenset({someone("ann")})) == 1
    with (tmp_path / "consent.csv").open(newline="") as stream:
        assert stream.read() == HEADER + rest
    assert cut_grants(tmp_path, KEY, frozenset({someone("cat")})) == 1


def test_erasure_tells_which_of_the_two_files_cannot_be_read(tmp_path):
    """Links that cannot be read stop it before anything is cut: nobody knows whose the accounts are."""
    layout = Layout(tmp_path)
    folder = layout.landing / "dao"
    folder.mkdir(parents=True)
    grants = HEADER + "1,reddit:ann,,train,2024-01-01,,\n"
    (folder / "consent.csv").write_text(grants)
    (folder / "contributors.csv").write_bytes("contributor,account\np-1,José\n".encode("cp1252"))
    with (
        ContributorKeys(tmp_path / "keys" / "c.sqlite", KEY) as keys,
        pytest.raises(ValueError, match=r"^dao/contributors\.csv, line 2: not UTF-8"),
    ):
        erase_landing(Journal([someone("ann")]), layout, KEY, keys)
    with pytest.raises(ValueError, match=r"^dao/contributors\.csv, line 2: not UTF-8") as caught:
        cut_grants(folder, KEY, frozenset({someone("ann")}))
    assert not isinstance(caught.value, UnreadableGrants)
    assert (folder / "consent.csv").read_text() == grants
    (folder / "contributors.csv").unlink()
    (folder / "consent.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(UnreadableGrants, match=r"^dao/consent\.csv: "):
        cut_grants(folder, KEY, frozenset({someone("ann")}))
