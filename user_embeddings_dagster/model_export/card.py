"""Model cards: README.md of an exported model, in the form that Hugging Face reads (YAML, then Markdown)."""

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from user_embeddings_dagster.conversations.chunks import VERSION as MASKING
from user_embeddings_dagster.evaluation.disclosure import ALL
from user_embeddings_dagster.model_export.facts import Facts
from user_embeddings_dagster.privacy.consent.live import OF_SPLIT
from user_embeddings_dagster.quality.escaping import cell, csv_cell

MAX_SCORES = 60
NOT_PROMISED = (
    "that a vector or user embedding is anonymous: it is data about a person, and words can be guessed from a vector",
    "that the texts it was trained on were free of personal data: masking finds what it knows, not everything",
    "that it forgets anybody: who is erased or withdraws consent after the export stays in every copy; the platform's "
    "access log says which versions were exported, so that the operator can recall them",
    "that it works on other people, languages or platforms than the scores are about",
    "that what it says of a person is true, or fit to decide anything about them",
)
TITLES = {
    "user_encoder": ("User encoder", "feature-extraction"),
    "personalised_llm": ("Personalised LLM", "text-generation"),
}
LOADING = {
    "user_encoder": """\
import sys

sys.path.insert(0, "user_encoder")
from modeling_user_encoder import UserEncoder

encoder = UserEncoder.load("user_encoder")
texts = ["<P1>: which stove?\\nSUBJECT: the gas one, always", "SUBJECT: I walked there"]
ended = [1_700_000_000, 1_700_090_000]  # seconds since 1970
items = encoder.item_vectors(texts)  # [2, D], length 1
states = encoder.states(texts, ended)  # [2, dimension]; the last is the user embedding
""",
    "personalised_llm": """\
import sys

sys.path[:0] = ["user_encoder", "personalised_llm"]
from modeling_personalised import PersonalisedLLM
from modeling_user_encoder import UserEncoder

llm = PersonalisedLLM.load("personalised_llm")
encoder = UserEncoder.load("user_encoder"{weights})
states = encoder.projected(["SUBJECT: the gas one, always"], [1_700_000_000])
users = llm.user_tokens([states])  # one user
ids = llm.tokenizer("Which stove?", return_tensors="pt").input_ids
logits = llm.logits(ids, users)  # [1, tokens, vocabulary]
print(llm.generate("Which stove?", states, max_new_tokens=20))
""",
}


def card(artifact: str, about: Sequence[str], facts: Facts, bases: Sequence[tuple[str, str]], weights: str = "") -> str:
    """README.md of `artifact` ("user_encoder", "personalised_llm").

    `about`: paragraphs on what it is; `bases`: models that it is built on, with their licences; `weights`: an argument
    for the loading of the user encoder.
    """
    title, task = TITLES[artifact]
    return (
        "\n\n".join(
            [
                _front_matter(facts.licence, task),
                f"# {title}",
                *about,
                "Loads with torch, transformers and safetensors alone; nothing is downloaded, nothing unpickled:",
                f"```python\n{LOADING[artifact].replace('{weights}', weights)}```",
                _data(facts),
                _privacy(facts),
                _scores(facts.scores),
                "## Not promised\n\n" + "\n".join(f"- {line}." for line in NOT_PROMISED),
                _licence(facts.licence, bases),
                _versions(facts),
            ]
        )
        + "\n"
    )


def scores_csv(scores: pl.DataFrame) -> str:
    """The scores as CSV that no spreadsheet takes for formulas."""
    texts = [name for name, dtype in scores.schema.items() if dtype == pl.String]
    return scores.with_columns(pl.col(texts).map_elements(csv_cell, return_dtype=pl.String)).write_csv()


def licence_of(folder: Path) -> str:
    """The licence that a Hugging Face folder's model card states, or "not stated in its folder"."""
    path = folder / "README.md"
    front = path.read_text(errors="replace").split("---")[1:2] if path.is_file() else []
    found = re.search(r"^license:\s*([\w.+-]+)\s*$", front[0], re.MULTILINE) if front else None
    return found[1] if found else "not stated in its folder"


def _front_matter(licence: str, task: str) -> str:
    lines = [] if licence == "not specified" else ["license: " + re.sub(r"[^\w.+-]", "-", licence)]
    return "\n".join(["---", *lines, "library_name: transformers", f"pipeline_tag: {task}", "---"])


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(cell(str(value)) for value in row) + " |" for row in rows)])


def _data(facts: Facts) -> str:
    few = f"fewer than {facts.min_people}"
    rows = [
        (datadao, split, OF_SPLIT[split], *(("hidden", "hidden") if users is None else (f"{users:,}", f"{chunks:,}")))
        for datadao, split, users, chunks in facts.counts
    ]
    told = (
        "Counts are of the current snapshot, whose people are those that the models were trained on."
        if facts.current
        else "Counts are of the current snapshot, which holds OTHER people than a model was trained on."
    )
    return "\n\n".join(
        [
            "## Data",
            "Conversations that people contributed to DataDAOs, as chunks around one SUBJECT each, masked before"
            f" anything else reads them (masking and chunking: `{MASKING}`). Split by person: whoever is in `test` took"
            " no part in any training, nor did any chunk that holds their words.",
            _table(("DataDAO", "split", "consented to", "users", "chunks"), rows),
            f"{told} Split hash: `{facts.split_hash}`. Hidden: about {few} people, or telling of such a count.",
        ]
    )


def _privacy(facts: Facts) -> str:
    rows = [f"- `{name}`: {line}." for name, line in facts.privacy.items()]
    erased = (
        ["**Trained on people who were erased or withdrew consent**, and released by the operator's setting."]
        if facts.erased
        else ["When it was exported, everybody that it was trained on consented to `train`, and nobody was erased."]
    )
    return "\n\n".join(["## Privacy", *erased, "\n".join(rows)])


def _scores(scores: pl.DataFrame) -> str:
    if scores.is_empty():
        return "## Scores\n\nNone that may be published: this version was not evaluated, or on too few people."
    order = (pl.col("datadao") != ALL, pl.col("slice") != ALL, pl.col("metric").str.ends_with("_difference"))
    first = scores.sort(*order, "asset", "model", "metric", "datadao", "slice").head(MAX_SCORES)
    rows = [
        (
            row["asset"], row["datadao"], row["slice"], row["model"], row["metric"], f"{row['value']:.3f}",
            "" if row["ci_low"] is None else f"{row['ci_low']:.3f} to {row['ci_high']:.3f}", row["n"], row["n_users"],
        )
        for row in first.sort("asset", "datadao", "slice", "model", "metric").iter_rows(named=True)
    ]  # fmt: skip
    head = ("measured by", "DataDAO", "slice", "model", "metric", "value", "95% interval", "n", "users")
    rest = f" {len(rows)} of {scores.height}; the rest is in `scores.csv`." if len(rows) < scores.height else ""
    told = (
        "Of people who took no part in training (membership inference: against people who did), intervals by bootstrap"
        " over people."
    )
    return f"## Scores\n\n{told}{rest}\n\n{_table(head, rows)}"


def _licence(licence: str, bases: Sequence[tuple[str, str]]) -> str:
    built_on = [f"- built on {name}: {terms}" for name, terms in bases]
    return "\n".join(["## Licence", "", f"Of this model: {licence}.", "", *built_on]).rstrip()


def _versions(facts: Facts) -> str:
    rows = [f"- `{name}`: `{version}`" for name, version in facts.models.items()]
    told = "`manifest.json` has the SHA-256 of every file; loading checks them."
    return "\n".join(["## Versions", "", *rows, "", told])
