"""What no table or file could take is no valid answer, whatever JSON and its schema allow."""

import json

import pytest

from user_embeddings_dagster.language_models.validation import InvalidAnswer, parse
from user_embeddings_dagster.summaries.koai import MAX_EVIDENCE, MAX_TURN, extract_koai

ANY = {"type": "object"}
COUNT = {"type": "object", "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("text", "schema", "says"),
    [
        ('{"n": "half \\ud83d"}', ANY, "surrogate"),
        ('{"\\udfff": 1}', ANY, "surrogate"),
        ('{"n": [{"m": ["\\ud800"]}]}', ANY, "surrogate"),
        ('{"n": 1.0}', COUNT, "schema path properties/n/type"),
        ('{"n": true}', COUNT, "schema path properties/n/type"),
        ('{"n": 9223372036854775808}', COUNT, "64 bits"),
        ('{"n": [-9223372036854775809]}', ANY, "64 bits"),
        ('{"n": 1e999}', ANY, "double"),
    ],
)
def test_what_cannot_be_stored_is_asked_again(text, schema, says):
    """C22: such an answer is a schema violation, which is asked again and never cached."""
    with pytest.raises(InvalidAnswer, match=says) as caught:
        parse(text, schema, "stop")
    assert caught.value.reason == "schema_violation"


@pytest.mark.parametrize(
    "value",
    [{"n": 2**63 - 1}, {"n": -(2**63)}, {"n": 1.5, "m": "\U0001f34e and \u0000"}, {"n": None, "m": [True, []]}],
)
def test_what_can_be_stored_is_an_answer(value):
    assert parse(json.dumps(value), ANY, "stop") == value


@pytest.mark.parametrize(
    ("evidence", "valid"),
    [
        ([], True), ([0, MAX_TURN], True), ([1] * MAX_EVIDENCE, True),
        ([-1], False), ([MAX_TURN + 1], False), ([10**25], False), ([1.0], False), ([True], False), (["1"], False),
        ([1] * (MAX_EVIDENCE + 1), False),
    ],
)  # fmt: skip
def test_a_program_takes_exactly_what_its_schema_does(evidence, valid):
    """C25: an answer that is cached is one that later code can parse."""
    program = extract_koai()
    answer = {"koais": [{"kind": "opinion", "statement": "SUBJECT thinks so.", "evidence": evidence}]}
    outcomes = []
    for accept in (lambda: parse(json.dumps(answer), program.schema, "stop"), lambda: program.parse(answer)):
        try:
            accept()
            outcomes.append(True)
        except (InvalidAnswer, ValueError):
            outcomes.append(False)
    assert outcomes == [valid, valid]
