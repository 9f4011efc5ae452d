"""What assets may leave in Dagster's storage, enforced at one place for all of them.

Dagster keeps what a step raises, returns, prints and reports. `contain` wraps every asset of the code location: errors
lose the text that libraries put into them (privacy.containment); metadata keeps numbers, hashes, tables of columns and
words under the names of WORDS, any other text is withheld; a value that is returned is refused by the IO manager. What
is printed is not captured (`compute_logs` in dagster.yaml). Log lines are held to fixed texts and numbers by a test.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.decorators.op_decorator import DecoratedOpFunction

from assets.exclusion import excluding
from user_embeddings_dagster.exports.landing import SLUG, BadFile, MissingExports
from user_embeddings_dagster.privacy.containment import contained
from user_embeddings_dagster.quality.escaping import printable
from user_embeddings_dagster.storage.durability import Damaged
from user_embeddings_dagster.storage.lance_tables import StaleVectors
from user_embeddings_dagster.storage.manifest import CorruptArtifact
from user_embeddings_dagster.storage.models import StaleEncoder, TaintedModel

# Text metadata that an asset may report: each from a fixed set of words, or a name that the operator chose.
WORDS = frozenset(
    {
        "attention", "datadaos_left_out", "device", "dimensions_left_out", "extractor", "id_index", "injection",
        "judge", "lines_of_nobody", "lines_of_nobody_ended", "method", "model", "models_marked",
        "models_marked_unused", "preset", "privacy", "program", "program_version", "ranker", "reason", "stopped_by",
        "summarizer", "usd_cap", "validator", "vector_index", "version",
    }
)  # fmt: skip
_HASH = re.compile(r"[0-9a-f]{8,64}")
_WORD = re.compile(r"[\w.:/@+ ,;()%='-]{0,200}", re.ASCII)
_KEY = re.compile(r"[\w.<>=-]{1,40}", re.ASCII)
_PLOT = re.compile(r"!\[plot\]\(data:image/png;base64,[A-Za-z0-9+/=]*\)")
REFUSED = (BadFile, CorruptArtifact, Damaged, MissingExports, StaleEncoder, StaleVectors, TaintedModel)
WITHHELD = "(text withheld: not a listed name of assets/containment.py)"


class NoValues(dg.IOManager):
    """The IO manager of the code location: assets write tables themselves, and no value is ever pickled."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Refuses everything but nothing."""
        if obj is not None:
            raise TypeError(f"an asset returned a {type(obj).__name__}: assets return results without values")

    def load_input(self, context: dg.InputContext) -> None:
        """Nothing was stored."""


def metadata_value(name: str, value: Any) -> Any:
    """The value as it may be stored."""
    plain = value.value if isinstance(value, dg.TextMetadataValue) else value
    if isinstance(plain, list) and name in WORDS and all(isinstance(word, str) for word in plain):
        return plain if all(_WORD.fullmatch(word) for word in plain) else dg.MetadataValue.text(WITHHELD)
    if isinstance(plain, dict):  # figures by a name of ours, such as a rule's number
        figures = all(isinstance(figure, bool | int | float) for figure in plain.values())
        return plain if figures and all(_KEY.fullmatch(str(key)) for key in plain) else dg.MetadataValue.text(WITHHELD)
    if isinstance(plain, str):
        fine = _HASH.fullmatch(plain) or (name in WORDS and _WORD.fullmatch(plain))
        return value if fine else dg.MetadataValue.text(WITHHELD)
    if isinstance(value, dg.MarkdownMetadataValue) and not _PLOT.fullmatch(value.value or ""):
        return dg.MetadataValue.md(printable(value.value or ""))
    number = bool | int | float | None
    known = (
        dg.MarkdownMetadataValue | dg.TableSchema | dg.TableColumnLineage | dg.TableSchemaMetadataValue
        | dg.TableColumnLineageMetadataValue | dg.IntMetadataValue | dg.FloatMetadataValue | dg.BoolMetadataValue
        | dg.NullMetadataValue | dg.TimestampMetadataValue
    )  # fmt: skip
    return value if isinstance(value, number | known) else dg.MetadataValue.text(WITHHELD)


def _metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: metadata_value(name, value) for name, value in (metadata or {}).items()}


def reported(result: Any) -> Any:
    """A step's result with the metadata that may be stored, of its checks too."""
    if isinstance(result, dg.MaterializeResult):
        checks = [reported(check) for check in result.check_results or []]
        return result._replace(metadata=_metadata(result.metadata), check_results=checks)
    if isinstance(result, dg.AssetCheckResult):
        return result._replace(metadata=_metadata(result.metadata))
    return result


def _failure(error: Exception) -> Exception:
    """What is raised in place of an error."""
    kept = contained(error)
    if isinstance(kept, REFUSED):  # the same again until somebody does what it says
        return dg.Failure(str(kept), allow_retries=False)
    if not isinstance(error, dg.Failure):
        return kept
    if kept is not error:  # of another library: without its text, but Dagster is to retry it as it asks
        return dg.Failure(str(kept), allow_retries=error.allow_retries)
    return dg.Failure(error.description, _metadata(error.metadata), error.allow_retries)


def _check_partition(context: object) -> None:
    """Raises Failure, without the key, if a partition's key is none that the sensor would register: keys become names
    of folders."""
    key = context.partition_key if isinstance(context, dg.AssetExecutionContext) and context.has_partition_key else None
    if key is not None and not SLUG.fullmatch(key):
        told = "a partition's key is [a-z0-9_-], of at most 63 characters, and not 'all'"
        raise dg.Failure(told, allow_retries=False)


def containing(function: Callable[..., Any]) -> Callable[..., Any]:
    """A compute function of a step whose errors and results are contained."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generate(*arguments: Any, **named: Any) -> Iterator[Any]:
            try:
                _check_partition(arguments[0] if arguments else named.get("context"))
                for result in function(*arguments, **named):
                    yield reported(result)
                return
            except Exception as error:  # noqa: BLE001 - raised again, without what it may quote
                failure = _failure(error)
            raise failure  # outside of the handler: what is raised inside of it keeps the error as its context

        return generate

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            _check_partition(arguments[0] if arguments else named.get("context"))
            return reported(function(*arguments, **named))
        except Exception as error:  # noqa: BLE001 - raised again, without what it may quote
            failure = _failure(error)
        raise failure

    return call


def contain(definitions: Iterable[Any]) -> list[Any]:
    """The same definitions, every asset among them contained, and held off while somebody erases or purges
    (assets.exclusion). Dagster has no public place for that."""
    definitions = list(definitions)
    for definition in definitions:
        if isinstance(definition, dg.AssetsDefinition) and definition.is_executable:
            op = definition.node_def
            if not isinstance(op, dg.OpDefinition) or not isinstance(op.compute_fn, DecoratedOpFunction):
                raise TypeError(f"{definition.keys}: not an asset that can be contained")
            if not is_contained(definition):
                wrapped = containing(excluding(op.compute_fn.decorated_fn))
                wrapped.__dict__["contained"] = True
                op._compute_fn = DecoratedOpFunction(wrapped)
    return definitions


def is_contained(definition: dg.AssetsDefinition) -> bool:
    """Whether its errors and results are."""
    op = definition.node_def
    compute = op.compute_fn if isinstance(op, dg.OpDefinition) else None
    return isinstance(compute, DecoratedOpFunction) and "contained" in compute.decorated_fn.__dict__
