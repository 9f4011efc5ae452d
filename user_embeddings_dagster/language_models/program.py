"""A program: what a language model is asked to do, as a value. It makes requests and reads their answers.

The prompt is formatted by DSPy's JSON adapter, so that DSPy's optimisers refine the very program that bulk work
runs. The adapter is asked once per program; a request fills its data into the result. Everything that does not
depend on the data (task, schema, demonstrations) comes first and is the same bytes in every request, which a
server's prefix cache computes once.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pydantic

from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.language_models.neutral import neutral
from user_embeddings_dagster.language_models.protocol import Message, Request

if TYPE_CHECKING:
    import dspy

FORMAT = "dspy-json-1"  # changes whenever the same program would read differently to a model
_VERSION_HEX = 16
Rows = list[dict[str, Any]]  # every input: a list of JSON objects
Output = TypeVar("Output", bound=pydantic.BaseModel)


@dataclass(frozen=True)
class Demo:
    """One worked example: the inputs by field, and the answer as JSON."""

    inputs: Mapping[str, Rows]
    output: Mapping[str, Any]


@dataclass(frozen=True)
class Program(Generic[Output]):
    """A named task with typed output.

    `inputs` maps each input field to its description; its value in a request is a list of JSON objects. `output` is
    a pydantic model that forbids extra fields and requires all of its own, as constrained decoding does. `settings` is
    what else shapes the answers of the model that is asked, such as its chat template's switches.
    """

    name: str
    instructions: str
    inputs: Mapping[str, str]
    output: type[Output]
    demos: tuple[Demo, ...] = ()
    max_tokens: int = 512
    settings: str = ""

    @cached_property
    def schema(self) -> dict[str, Any]:
        """JSON schema of an answer."""
        return self.output.model_json_schema()

    @cached_property
    def version(self) -> str:
        """Hash of everything that shapes the prompt or bounds the answer (16 hex)."""
        shaping = {**self._content(), "schema": self.schema, "format": FORMAT}
        return content_id(json.dumps(shaping, sort_keys=True))[:_VERSION_HEX]

    def request(self, inputs: Mapping[str, Rows], owner: str) -> Request:
        """The question about `inputs`, whose text belongs to the contributor `owner` (user_id).

        What the text says cannot close its field or forge a turn: see `neutral`. Raises ValueError if the input
        fields are not exactly the program's.
        """
        if inputs.keys() != self.inputs.keys():
            raise ValueError(f"{self.name}: input fields {sorted(inputs)}, expected {sorted(self.inputs)}")
        constant, *between = self._template
        values = (json.dumps(neutral(inputs[name]), ensure_ascii=False) for name in self.inputs)
        first, *rest = between
        content = "".join((first, *(part for pair in zip(values, rest, strict=True) for part in pair)))
        return Request(
            messages=(*constant, Message("user", content)),
            schema=self.schema,
            owner=owner,
            program=f"{self.name}/{self.version}",
            max_tokens=self.max_tokens,
        )

    def parse(self, value: Any) -> Output:
        """The answer `value` (JSON) as the output model. Raises ValueError, without any of the answer."""
        try:
            return self.output.model_validate(value, strict=True)
        except pydantic.ValidationError as error:
            wrong = sorted({_place(found) for found in error.errors(include_input=False)})
            raise ValueError(f"{self.name}: answer does not fit: {wrong}") from None

    def with_instructions(self, instructions: str) -> "Program[Output]":
        """The same program with another task text."""
        return replace(self, instructions=instructions)

    def with_settings(self, settings: str) -> "Program[Output]":
        """The same program asked of a model with other settings: another version, whose answers are its own."""
        return replace(self, settings=settings)

    def to_json(self) -> str:
        """The program as JSON, without its output model, with its version."""
        return json.dumps({**self._content(), "version": self.version}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, output: type[Output]) -> "Program[Output]":
        """The program that `to_json` wrote, or that somebody wrote by hand without a version.

        Raises ValueError if `text` is no program, if a demonstration does not fit `output`, or if the version in
        it is not that of its content.
        """
        try:
            content = json.loads(text)
            version = content.pop("version", None)
            demos = tuple(Demo(demo["inputs"], demo["output"]) for demo in content.pop("demos"))
            program = cls(output=output, demos=demos, **content)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not a program: {type(error).__name__}") from None
        for demo in program.demos:
            program.parse(demo.output)
        if version not in (None, program.version):
            raise ValueError(f"{program.name}: written as version {version}, read as {program.version}")
        return program

    def signature(self) -> "type[dspy.Signature]":
        """The program as DSPy's signature: the same fields and instructions."""
        dspy = _dspy()
        fields: dict[str, Any] = {name: (Rows, dspy.InputField(desc=desc)) for name, desc in self.inputs.items()}
        for name, field in self.output.model_fields.items():
            fields[name] = (field.annotation, dspy.OutputField(desc=field.description or name))
        return dspy.Signature(fields, self.instructions)

    @cached_property
    def _template(self) -> tuple[Any, ...]:
        """The constant messages, then the pieces of the last message between which the inputs stand."""
        marks = {name: [{"input": name}] for name in self.inputs}
        messages = adapter().format(self.signature(), self._demo_fields(), marks)
        *constant, last = (Message(message["role"], message["content"]) for message in messages)
        pieces, rest = [], last.content
        for mark in marks.values():
            before, found, rest = rest.partition(json.dumps(mark))
            if not found:
                raise ValueError(f"{self.name}: the prompt does not hold its inputs in order")
            pieces.append(before)
        return tuple(constant), *pieces, rest

    def _demo_fields(self) -> list[dict[str, Any]]:
        return [{**demo.inputs, **demo.output} for demo in self.demos]

    def _content(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "instructions": self.instructions,
            "inputs": dict(self.inputs),
            "max_tokens": self.max_tokens,
            "demos": [{"inputs": dict(demo.inputs), "output": dict(demo.output)} for demo in self.demos],
            **({"settings": self.settings} if self.settings else {}),
        }


def _place(error: Any) -> str:
    """Where and how an answer is wrong; the name of a field that should not be there is the model's, and left out."""
    path = error["loc"][:-1] if error["type"] == "extra_forbidden" else error["loc"]
    return f"{'.'.join(map(str, path))}: {error['type']}"


@lru_cache(maxsize=1)
def adapter() -> "dspy.JSONAdapter":
    """DSPy's JSON adapter, which writes every input as neutral JSON. DSPy runs programs of ours with it."""
    dspy = _dspy()

    class NeutralJSONAdapter(dspy.JSONAdapter):
        def format_user_message_content(
            self, signature: Any, inputs: dict[str, Any], prefix: str = "", suffix: str = "", main_request: bool = False
        ) -> str:
            inputs = {name: neutral(value) for name, value in inputs.items()}
            return super().format_user_message_content(signature, inputs, prefix, suffix, main_request)

    return NeutralJSONAdapter(use_native_function_calling=False)


def _dspy() -> Any:
    from user_embeddings_dagster.language_models.dspy_settings import quiet_dspy

    quiet_dspy()
    import dspy

    return dspy
