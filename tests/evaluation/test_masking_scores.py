"""C11: recall, precision and F2 of the masking, and the asset that records them."""

import json

import polars as pl
import pytest

from user_embeddings_dagster.evaluation import masking
from user_embeddings_dagster.evaluation.masking import NoLabelledData, measure_masking, names_masked, read_labelled
from user_embeddings_dagster.evaluation.own_messages import MAKERS, own_messages
from user_embeddings_dagster.evaluation.pii import LabelledText, changed_share, read_conll, score_entities
from user_embeddings_dagster.privacy.pii import IDENTIFIERS, PEOPLE, locate_kinds
from user_embeddings_dagster.schema import SCORES

TEXTS = [LabelledText("call 123 or ann@x", ((5, 8, "PHONE"), (12, 17, "EMAIL")), str(n)) for n in range(5)]
KINDS = {"PHONE": frozenset({"PHONE"}), "EMAIL": frozenset({"EMAIL"})}


def test_scores_by_hand():
    """C11: one of three phone characters missed, two masked too many: R 2/3, P 1/2, F2 5·PR/(4P+R) = 0.625."""
    phone, email = score_entities(TEXTS, [[(3, 7, "PHONE"), (12, 17, "EMAIL")]] * 5, KINDS)
    assert (phone.n, phone.whole.value, phone.recall.value, phone.precision.value) == (5, 0, 2 / 3, 0.5)
    assert phone.f2.value == pytest.approx(5 * 0.5 * (2 / 3) / (4 * 0.5 + 2 / 3))
    assert (email.whole.value, email.recall.value, email.f2.value) == (1, 1, 1)
    assert phone.recall.low == phone.recall.high == 2 / 3 and phone.recall.n_users == 5


def test_masked_as_another_kind_is_masked():
    """C11: recall counts any mask, precision only the entity's own kinds."""
    phone, email = score_entities(TEXTS, [[(5, 8, "CARD"), (5, 17, "EMAIL")]] * 5, KINDS)
    assert (phone.recall.value, phone.precision.value) == (1, 0) and email.precision.value == 5 / 12


def test_nothing_and_everything():
    """A masker that finds nothing scores 0; one that masks all changes all benign texts."""
    benign = [LabelledText("hello", (), str(n)) for n in range(5)]
    assert [score.f2.value for score in score_entities(TEXTS, [[]] * 5, KINDS)] == [0, 0]
    assert changed_share(benign, [[(0, 5, "URL")]] * 5).value == 1 and changed_share(benign, [[]] * 5).value == 0


def test_readers(tmp_path):
    """Others' formats: character spans of presidio-research, IOB tokens with parted mentions."""
    (tmp_path / "a.conll").write_text("@\tO\nbob\tO\nmet\tO\nAnn\tB-PER\nLee\tI-PER\nhttp://x.org\tO\n\nhi\tO\n")
    (text, plain) = read_conll(tmp_path / "a.conll")
    assert (text.text, plain.text) == ("@bob met Ann Lee http://x.org", "hi")
    assert [(text.text[a:b], e) for a, b, e in text.spans] == [
        ("bob", "MENTION"), ("Ann Lee", "PER"), ("http://x.org", "LINK"),
    ]  # fmt: skip
    span = {"start_position": 3, "end_position": 6, "entity_type": "PERSON"}
    (tmp_path / "b.json").write_text(json.dumps([{"full_text": "hi Ann!", "spans": [span], "template_id": 1}]))
    assert [len(texts) for texts in read_labelled(tmp_path).values()] == [2, 1]
    with pytest.raises(NoLabelledData):
        read_labelled(tmp_path / "none")


def test_structured_kinds_of_our_own_messages():
    """C10, C11: all kinds but names of persons are found whole, in every context; nothing benign is touched."""
    texts = own_messages(per_kind=16, seed=1)
    found = locate_kinds(pl.Series([text.text for text in texts]), (*IDENTIFIERS, *PEOPLE))
    kinds = {f"{kind} ({name})": frozenset({kind}) for name, (kind, _) in MAKERS.items()}
    scores = {score.entity: score for score in score_entities(texts, found, kinds)}
    assert len(scores) == len(MAKERS) >= 30
    assert {name for name, score in scores.items() if score.whole.value != 1} <= {"PERSON (person)"}
    assert changed_share(texts, found).value == 0


def test_planted_participants(monkeypatch):
    """C9: every participant in every form, whole; a masker that knows nobody is caught."""
    estimates = names_masked()
    assert [estimate.value for estimate in estimates.values()] == [1, 1] and estimates.popitem()[1].n > 150
    blind = masking.mask_messages
    monkeypatch.setattr(masking, "mask_messages", lambda m, p: blind(m, p.filter(author_id="p2")))
    assert (names_masked()["nothing left of the name"].value or 0) < 0.6


def test_rows_conform():
    """C11: rows of the scores table, the same again for the same seed."""
    rows = SCORES.conform(measure_masking(None, 0))
    assert rows.equals(SCORES.conform(measure_masking(None, 0)))
    assert rows.filter(metric="recall")["value"].min() > 0.8
