"""The fault server answers any schema that a program sends: each value is valid, and the same for the same seed."""

import datetime
import json
from typing import Annotated, Literal

import jsonschema
import pydantic
import pytest

from benchmarks.schema_samples import sample


class Part(pydantic.BaseModel):
    kind: Literal["knowledge", "opinion", "attribute", "intent"]
    text: Annotated[str, pydantic.Field(min_length=3, max_length=40)]
    weight: Annotated[float, pydantic.Field(gt=0, lt=0.25)]
    day: datetime.date | None


class Tree(pydantic.BaseModel):
    name: str
    children: list["Tree"]


class Whole(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    parts: Annotated[list[Part], pydantic.Field(min_length=2, max_length=5)]
    ranks: dict[str, Annotated[int, pydantic.Field(ge=1, le=3)]]
    tree: Tree
    pair: tuple[int, str]
    certain: bool
    either: int | str | Part
    nothing: None = None


SCHEMAS = [
    Whole.model_json_schema(),
    {},
    {"const": 7},
    {"type": "integer", "minimum": 5, "exclusiveMaximum": 6},
    {"type": "integer", "exclusiveMinimum": -4, "maximum": -3},
    {"type": "number", "maximum": -100},
    {"type": "integer", "multipleOf": 5, "minimum": 1},
    {"type": ["null", "string"], "minLength": 90},
    {"type": "array", "items": {"enum": [1, 2, 3, 4]}, "minItems": 4, "uniqueItems": True},
    {"type": "array", "items": {"type": "string"}, "minItems": 12, "maxItems": 12, "uniqueItems": True},
    {"type": "array", "maxItems": 0},
    {"type": "object", "minProperties": 2, "additionalProperties": {"type": "boolean"}},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "null"}}}, {"required": ["a"]}]},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema)[:30])
@pytest.mark.parametrize("text", [None, "CANARY"])
def test_a_sample_is_valid(schema, text):
    validator = jsonschema.Draft202012Validator(schema)
    for seed in range(40):
        value = sample(schema, seed, text)
        validator.validate(json.loads(json.dumps(value)))
        assert value == sample(schema, seed, text)


def test_free_strings_hold_the_text():
    assert sample({"type": "array", "items": {"type": "string"}, "minItems": 2}, 0, "CANARY")[:2] == ["CANARY"] * 2


def test_what_is_not_covered_is_an_error():
    with pytest.raises(ValueError, match="pattern"):
        sample({"type": "string", "pattern": "^a+$"}, 0)
