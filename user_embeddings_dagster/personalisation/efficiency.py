"""Rows of the scores table from what `training/efficiency.py` counted and measured (C46)."""

from collections.abc import Mapping

import polars as pl

from user_embeddings_dagster.evaluation.bootstrap import Estimate
from user_embeddings_dagster.evaluation.scores import Scope, ScoreSheet
from user_embeddings_dagster.quality.outcome import WARNING, CheckOutcome

OWN, EMBEDDED = "decoder", "user_embedding"
MIN_FLOPS_RATIO, MIN_SECONDS_RATIO = 78.0, 20.0
LARGER: Mapping[str, Mapping[str, int | bool]] = {
    "qwen3_512x8": {
        "vocab_size": 4096, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "tie_word_embeddings": True,
    },
    "qwen3_32b": {
        "vocab_size": 151936, "hidden_size": 5120, "intermediate_size": 25600, "num_hidden_layers": 64,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False,
    },
}  # fmt: skip
"""Sizes of decoders whose FLOPs are counted beside: one a few times the base decoder's, and that of Qwen3-32B."""


def longest_histories(snapshot: pl.DataFrame, items: int) -> pl.DataFrame:
    """Rows of a snapshot of whole histories, the longest first, until there are so many chunks (or no more users)."""
    lengths = (
        snapshot.group_by("datadao", "user_id")
        .len()
        .sort(["len", "datadao", "user_id"], descending=[True, False, False])
    )
    before = pl.col("len").cum_sum() - pl.col("len")
    chosen = lengths.filter(before < items).select("datadao", "user_id")
    return snapshot.join(chosen, on=["datadao", "user_id"], how="semi")


def efficiency_scores(costs: pl.DataFrame, scope: Scope, version: str) -> pl.DataFrame:
    """SCORES of `costs` (decoder, way, items, metric, value, repeats): about texts and machines, so of no users."""
    sheet = ScoreSheet(scope)
    for row in costs.iter_rows(named=True):
        model = row["way"] if row["decoder"] == OWN else f"{row['way']} ({row['decoder']})"
        estimate = Estimate(row["value"], None, None, n=row["repeats"], n_users=0)
        slice_ = f"items={row['items']}"
        sheet.add(model, row["metric"], estimate, slice_=slice_, candidates="prompt", version=version)
    return sheet.frame()


def ratios(costs: pl.DataFrame) -> pl.DataFrame:
    """What to draw: one line per ratio of the embedding (own decoder), on slices `items=…`; metric "ratio"."""
    names = pl.col("metric").str.strip_suffix("_ratio").str.replace_all("_", " ")
    rows = costs.filter(pl.col("metric").str.ends_with("_ratio"), decoder=OWN, way=EMBEDDED)
    none = pl.lit(None, pl.Float64)
    return rows.select(
        model=names, metric=pl.lit("ratio"), slice=pl.format("items={}", "items"), value="value",
        ci_low=none, ci_high=none,
    )  # fmt: skip


def embedding_saves(scores: pl.DataFrame) -> CheckOutcome:
    """At the most items, stuffing costs at least 78 times the embedding's FLOPs and 20 times its time to first token.

    User-LLM (Ning et al. 2024, arXiv:2402.13598) reports 78.1 times the FLOPs, at 200 items.
    """
    rows = scores.filter(model=EMBEDDED).with_columns(items=pl.col("slice").str.strip_prefix("items=").cast(pl.Int64))
    most = rows.filter(pl.col("items") == pl.col("items").max())
    found = {
        name: float(most.filter(metric=f"{name}_ratio")["value"].sum()) for name in ("flops", "seconds_to_first_token")
    }
    passed = found["flops"] >= MIN_FLOPS_RATIO and found["seconds_to_first_token"] >= MIN_SECONDS_RATIO
    return CheckOutcome("embedding_saves", passed, WARNING, found)
