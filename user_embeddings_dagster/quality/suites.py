"""Great Expectations suites as data: what must hold of each table. The adapter runs them; nothing here imports it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from user_embeddings_dagster.quality.outcome import ERROR, WARNING

ID = "^[0-9a-f]{32}$"
SLUG = "^[a-z0-9][a-z0-9_-]*$"
ROLES = ("user", "assistant", "system", "tool", "service", "bot", "deleted")
KINDS = ("knowledge", "opinion", "attribute", "intent")
PLATFORMS = ("reddit", "telegram", "chatgpt")
# Earlier than every platform; the end only catches milliseconds read as seconds. No wall clock: checks repeat.
PLAUSIBLE = {"min_value": datetime(2000, 1, 1, tzinfo=UTC), "max_value": datetime(2100, 1, 1, tzinfo=UTC)}
BOUNDED_METRICS = ("recall@1", "recall@5", "recall@10", "mrr")


@dataclass(frozen=True)
class Expectation:
    """One expectation: `kind` is the class of `great_expectations.expectations`, `kwargs` its arguments.

    `only` restricts it to the rows whose column is one of the values: (column, values).
    """

    name: str
    description: str
    kind: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    severity: str = ERROR
    only: tuple[str, tuple[str, ...]] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it reads."""
        named = [self.kwargs[key] for key in ("column", "column_A", "column_B") if key in self.kwargs]
        named += self.kwargs.get("column_list", [])
        return tuple(dict.fromkeys([*named, *([self.only[0]] if self.only else [])]))


def _unique(name: str, *columns: str) -> Expectation:
    text = f"{' and '.join(columns)} identify a row."
    if len(columns) == 1:
        return Expectation(name, text, "ExpectColumnValuesToBeUnique", {"column": columns[0]})
    return Expectation(name, text, "ExpectCompoundColumnsToBeUnique", {"column_list": list(columns)})


def _matches(name: str, column: str, regex: str, text: str, severity: str = ERROR) -> Expectation:
    return Expectation(name, text, "ExpectColumnValuesToMatchRegex", {"column": column, "regex": regex}, severity)


def _one_of(name: str, column: str, values: tuple[str, ...], text: str) -> Expectation:
    return Expectation(name, text, "ExpectColumnValuesToBeInSet", {"column": column, "value_set": list(values)})


def _present(name: str, column: str, text: str, severity: str = ERROR) -> Expectation:
    return Expectation(name, text, "ExpectColumnValuesToNotBeNull", {"column": column}, severity)


def _between(name: str, column: str, text: str, severity: str = ERROR, **bounds: Any) -> Expectation:
    return Expectation(name, text, "ExpectColumnValuesToBeBetween", {"column": column, **bounds}, severity)


def _ordered(name: str, low: str, high: str, text: str, severity: str = ERROR) -> Expectation:
    kwargs = {"column_A": high, "column_B": low, "or_equal": True, "ignore_row_if": "either_value_is_missing"}
    return Expectation(name, text, "ExpectColumnPairValuesAToBeGreaterThanB", kwargs, severity)


_DATADAO_SLUG = _matches("datadao_is_slug", "datadao", SLUG, "The DataDAO is a slug.")
_NOT_EMPTY = Expectation(
    "has_rows", "There is at least one row.", "ExpectTableRowCountToBeBetween", {"min_value": 1}, WARNING
)

SUITES: dict[str, tuple[Expectation, ...]] = {
    "messages": (
        _NOT_EMPTY,
        _unique("message_id_unique", "message_id"),
        _matches("message_id_is_hash", "message_id", ID, "Message ids are 32 hex digits."),
        _matches("author_id_is_hash", "author_id", ID, "Authors are hashes, never names."),
        _DATADAO_SLUG,
        _one_of("role_known", "role", ROLES, "Roles are the seven of the schema."),
        _one_of("platform_known", "platform", PLATFORMS, "Platforms are the three of the schema."),
        _one_of("thread_shape_known", "thread_shape", ("tree", "linear"), "Threads are trees or linear."),
        _between("created_at_plausible", "created_at", "Written in this century.", WARNING, **PLAUSIBLE),
        _ordered("edited_after_created", "created_at", "edited_at", "No edit before the message.", WARNING),
        _matches("raw_sha256_is_hash", "raw_sha256", "^[0-9a-f]{64}$", "Every row names its raw file (C7)."),
        _between("raw_location_counts", "raw_location", "Every row has a place in its file (C7).", min_value=0),
    ),
    "masked_chunks": (
        _NOT_EMPTY,
        _unique("chunk_id_unique", "chunk_id"),
        _matches("chunk_id_is_hash", "chunk_id", ID, "Chunk ids are 32 hex digits."),
        _matches("user_id_is_hash", "user_id", ID, "Users are hashes, never names."),
        _DATADAO_SLUG,
        _matches("subject_speaks", "text", "(?m)^SUBJECT: ", "SUBJECT speaks in every chunk (C9)."),
        _between("subject_turns_counted", "n_subject_turns", "At least one turn is SUBJECT's.", min_value=1),
        _between("tokens_counted", "n_tokens", "Chunks hold text.", min_value=1),
        _between("masked_counted", "n_masked", "Masked names are counted.", min_value=0),
        _ordered("ends_after_start", "started_at", "ended_at", "No chunk ends before it starts."),
        _between("ended_at_plausible", "ended_at", "Written in this century.", WARNING, **PLAUSIBLE),
    ),
    "chunk_summaries": (
        _NOT_EMPTY,
        _unique("summary_id_unique", "summary_id"),
        _unique("one_summary_per_chunk", "chunk_id"),
        _matches("summary_id_is_hash", "summary_id", ID, "Summary ids are 32 hex digits."),
        _DATADAO_SLUG,
        _present("summarizer_named", "summarizer", "Every summary names its summariser (C22)."),
        _matches("program_version_named", "program_version", r"\S", "Every summary names its program version (C24)."),
        _matches("summary_has_text", "text", r"\S", "No summary is blank."),
        _matches("summary_names_subject", "text", "SUBJECT", "Summaries speak of SUBJECT.", WARNING),
    ),
    "koais": (
        _NOT_EMPTY,
        _unique("koai_id_unique", "koai_id"),
        _matches("koai_id_is_hash", "koai_id", ID, "KOAI ids are 32 hex digits."),
        _DATADAO_SLUG,
        _one_of("kind_known", "kind", KINDS, "A KOAI is knowledge, an opinion, an attribute or an intent (C25)."),
        _matches("statement_has_text", "statement", r"\S", "No statement is blank."),
        _present("extractor_named", "extractor", "Every KOAI names its extractor."),
        _matches("koai_program_version_named", "program_version", r"\S", "Every KOAI names its program version."),
    ),
    "scores": (
        _NOT_EMPTY,
        _unique("score_key_unique", "asset", "datadao", "model", "metric", "slice"),
        _DATADAO_SLUG,
        Expectation(
            "value_in_bounds", "Recall and MRR are between 0 and 1.", "ExpectColumnValuesToBeBetween",
            {"column": "value", "min_value": 0.0, "max_value": 1.0}, only=("metric", BOUNDED_METRICS),
        ),
        _ordered("value_above_ci_low", "ci_low", "value", "The value is not below its interval."),
        _ordered("value_below_ci_high", "value", "ci_high", "The value is not above its interval."),
        _between("n_counted", "n", "Every score says how many queries it averages.", min_value=0),
        _matches("split_hash_is_hash", "split_hash", ID, "A score names its split, to be measured again."),
        _matches("candidate_set_named", "candidate_set", r"\S", "A score names its candidates, to be measured again."),
        _present("score_measured", "value", "No score was omitted for want of users.", WARNING),
    ),
}  # fmt: skip
"""By table name."""
