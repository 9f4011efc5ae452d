"""A value that satisfies a JSON schema: what the fault server answers when nobody told it what to say.

Covers what pydantic writes: objects, arrays (also of fixed places), strings, numbers, booleans, null, enum, const,
anyOf/oneOf/allOf, $ref with $defs (recursive ones end at a depth), bounds of length, size and value. `pattern`
is refused: a schema that needs it cannot be answered by chance.
"""

import math
import random
from typing import Any

_DEEP = 6  # from here on: the branch of a union that ends, no optional property, the fewest items
_WORDS = (
    "SUBJECT plans a trip", "SUBJECT explains a setting", "SUBJECT prefers tea", "SUBJECT asks for a recipe",
    "SUBJECT compares two tools", "SUBJECT recalls a concert", "SUBJECT is learning to cook", "SUBJECT agrees",
)  # fmt: skip


def sample(schema: Any, seed: int, text: str | None = None) -> Any:
    """A value valid against `schema`, the same for the same seed; free strings hold `text` if given.

    Raises ValueError for a keyword that is not covered.
    """
    return _value(schema, schema, random.Random(seed), text, 0)


def _value(schema: Any, root: Any, generator: random.Random, text: str | None, depth: int) -> Any:
    schema = _resolved(schema, root)
    if schema is True or schema == {}:
        return _string({}, generator, text)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return generator.choice(schema["enum"])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return _value(_branch(schema[union], root, generator, depth), root, generator, text, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "array" if "items" in schema else "string")
    if isinstance(kind, list):
        kind = "null" if depth >= _DEEP and "null" in kind else next(name for name in kind if name != "null")
    match kind:
        case "object":
            return _object(schema, root, generator, text, depth)
        case "array":
            return _array(schema, root, generator, text, depth)
        case "string":
            return _string(schema, generator, text)
        case "integer" | "number":
            return _number(schema, generator, whole=kind == "integer")
        case "boolean":
            return generator.random() < 0.5
        case "null":
            return None
    raise ValueError(f"type {kind} is not covered")


def _resolved(schema: Any, root: Any) -> Any:
    """`schema` without $ref and allOf at its top."""
    while isinstance(schema, dict) and ("$ref" in schema or "allOf" in schema):
        rest = {name: value for name, value in schema.items() if name not in ("$ref", "allOf")}
        parts = list(schema.get("allOf", ()))
        if "$ref" in schema:
            target = root
            for name in schema["$ref"].removeprefix("#").strip("/").split("/"):
                target = target[name.replace("~1", "/").replace("~0", "~")] if name else target
            parts.append(target)
        for part in parts:
            for name, value in part.items():
                if name == "properties":
                    rest[name] = {**rest.get(name, {}), **value}
                elif name == "required":
                    rest[name] = [*rest.get(name, []), *value]
                else:
                    rest.setdefault(name, value)
        schema = rest
    return schema


def _branch(branches: list[Any], root: Any, generator: random.Random, depth: int) -> Any:
    plain = [branch for branch in branches if branch.get("type") != "null"]
    if depth < _DEEP:
        return generator.choice(plain or branches)
    simple = ("null", "string", "integer", "number", "boolean")
    return next((branch for branch in branches if _resolved(branch, root).get("type") in simple), branches[0])


def _object(schema: Any, root: Any, generator: random.Random, text: str | None, depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    names = list(properties) if depth < _DEEP else [name for name in properties if name in schema.get("required", ())]
    value = {name: _value(properties[name], root, generator, text, depth + 1) for name in names}
    others = schema.get("additionalProperties", True)
    for name in schema.get("required", ()):
        if name not in value:
            value[name] = _value(others, root, generator, text, depth + 1)
    while len(value) < schema.get("minProperties", 0):
        value[f"name{len(value)}"] = _value(others, root, generator, text, depth + 1)
    return value


def _array(schema: Any, root: Any, generator: random.Random, text: str | None, depth: int) -> list[Any]:
    first = [_value(part, root, generator, text, depth + 1) for part in schema.get("prefixItems", ())]
    low = schema.get("minItems", 0)
    high = min(schema.get("maxItems", low + 3), low + 3)
    size = low if depth >= _DEEP else generator.randint(max(low, min(1, high)), high)
    others = schema.get("items", {})
    if others is False:
        return first
    values = list(first)
    for _ in range(100):
        if len(values) >= size:
            break
        value = _value(others, root, generator, text, depth + 1)
        if schema.get("uniqueItems") and isinstance(value, str) and value in values:
            value = _string(_resolved(others, root), generator, f"{len(values)} {value}")
        if not schema.get("uniqueItems") or value not in values:
            values.append(value)
    return values


def _string(schema: Any, generator: random.Random, text: str | None) -> str:
    if "pattern" in schema:
        raise ValueError("the keyword pattern is not covered")
    forms = {"date": "2024-05-06", "date-time": "2024-05-06T07:08:09Z", "time": "07:08:09Z", "email": "a@example.org"}
    if schema.get("format") in forms:
        return forms[schema["format"]]
    value = text if text is not None else generator.choice(_WORDS)
    value = value.ljust(schema.get("minLength", 0), ".")
    return value[: schema.get("maxLength", len(value))]


def _number(schema: Any, generator: random.Random, whole: bool) -> float:
    step = schema.get("multipleOf", 1 if whole else None)
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        low = high - 10 if high is not None else 0
    high = low + 10 if high is None else high
    if step is None:
        return low if low == high else low + (high - low) * generator.uniform(0.25, 0.75)
    first, last = math.ceil(low / step), math.floor(high / step)
    first += "exclusiveMinimum" in schema and first * step == schema["exclusiveMinimum"]
    last -= "exclusiveMaximum" in schema and last * step == schema["exclusiveMaximum"]
    return generator.randint(first, max(first, last)) * step
