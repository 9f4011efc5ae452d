"""Domain checks on vectors, losses, weights, splits, scores and funnels. Each returns one `CheckOutcome`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.funnel import cap_violations, funnel_violations
from user_embeddings_dagster.evaluation.splits import SUBJECT, TRAINED_SPLITS, Frame, leakage_check
from user_embeddings_dagster.quality.outcome import ERROR, WARNING, CheckOutcome

NORM_TOLERANCE = 1e-3
MAX_MEAN_COSINE = 0.95
MIN_EFFECTIVE_RANK = 3.0
RANK_SAMPLE = 2_000
SPEAKER = r"^(SUBJECT|<P\d+>|[A-Z]+)$"
MAX_MODEL_FAILURES = 0.01


def finite_vectors(vectors: np.ndarray) -> CheckOutcome:
    """No vector [n, dim] holds NaN or infinity."""
    wrong = int((~np.isfinite(vectors)).any(axis=1).sum())
    return CheckOutcome("finite_vectors", wrong == 0, ERROR, {"n": len(vectors), "not_finite": wrong})


def unit_norm(vectors: np.ndarray) -> CheckOutcome:
    """Every vector [n, dim] has length 1 within 0.001."""
    error = np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1.0)
    wrong = int((~(error <= NORM_TOLERANCE)).sum())  # NaN is wrong
    largest = float(error[np.isfinite(error)].max(initial=0.0))
    metrics = {"n": len(vectors), "not_unit": wrong, "largest_error": largest}
    return CheckOutcome("unit_norm", wrong == 0, ERROR, metrics)


def not_collapsed(vectors: np.ndarray) -> CheckOutcome:
    """The vectors [n, dim] point in many directions: mean pairwise cosine at most 0.95, effective rank at least 3.

    Effective rank: exp of the entropy of the covariance's normalised eigenvalues (Roy & Vetterli 2007), on at most
    2,000 evenly spaced rows. Few vectors need only half the rank they can have; fewer than two always pass.
    """
    rows = vectors[np.isfinite(vectors).all(axis=1)].astype(np.float64)
    n = len(rows)
    if n < 2:
        return CheckOutcome("not_collapsed", True, WARNING, {"n": n})
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    cosine = float(((rows.sum(axis=0) ** 2).sum() - (rows**2).sum()) / (n * (n - 1)))
    sample = rows[np.linspace(0, n - 1, min(n, RANK_SAMPLE)).astype(int)]
    spectrum = np.linalg.svd(sample - sample.mean(axis=0), compute_uv=False) ** 2
    share = spectrum[spectrum > 1e-12] / max(spectrum.sum(), 1e-12)
    rank = float(np.exp(-(share * np.log(share)).sum())) if len(share) else 0.0
    wanted = min(MIN_EFFECTIVE_RANK, (n - 1) / 2)
    metrics = {"n": n, "mean_cosine": cosine, "effective_rank": rank, "dim": vectors.shape[1]}
    return CheckOutcome("not_collapsed", cosine <= MAX_MEAN_COSINE and rank >= wanted, WARNING, metrics)


def loss_fell(losses: Sequence[float]) -> CheckOutcome:
    """The mean of the last tenth of the losses is below that of the first tenth, and all are finite."""
    values = np.asarray(losses, dtype=np.float64)
    wrong = int((~np.isfinite(values)).sum())
    if len(values) < 2 or wrong:
        return CheckOutcome("loss_fell", False, ERROR, {"n": len(values), "not_finite": wrong})
    part = max(1, len(values) // 10)
    first, last = float(values[:part].mean()), float(values[-part:].mean())
    return CheckOutcome("loss_fell", last < first, ERROR, {"n": len(values), "first": first, "last": last})


def may_be_read(marked: int) -> CheckOutcome:
    """The promoted version (of the sequence encoder: at the served dimension) is not marked: nobody it was trained on
    has been erased or has withdrawn consent since, or the policy is to serve it all the same. Every consent ledger and
    the sensor models bring it up to date, and automation waits for it."""
    return CheckOutcome("may_be_read", marked == 0, ERROR, {"marked": marked})


def finite_weights(folder: Path) -> CheckOutcome:
    """Every weight in the safetensors files below `folder` is finite. Raises FileNotFoundError if there is none."""
    paths = sorted(Path(folder).rglob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{folder}: no safetensors file")
    n = wrong = 0
    for path in paths:
        count, bad = _weights(path)
        n, wrong = n + count, wrong + bad
    return CheckOutcome("finite_weights", wrong == 0, ERROR, {"n": n, "not_finite": wrong, "files": len(paths)})


def _weights(path: Path) -> tuple[int, int]:
    """Floating-point weights of a file, and how many are not finite."""
    from safetensors import deserialize

    n = wrong = 0
    floats = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
    for _, tensor in deserialize(path.read_bytes()):
        if tensor["dtype"] in floats:
            bad = ~np.isfinite(np.frombuffer(tensor["data"], dtype=floats[tensor["dtype"]]))
        elif tensor["dtype"] == "BF16":  # NumPy has none: not finite if all eight exponent bits are set
            bad = np.frombuffer(tensor["data"], dtype=np.uint16) & 0x7F80 == 0x7F80
        else:
            continue
        n, wrong = n + len(bad), wrong + int(bad.sum())
    return n, wrong


def split_leakage_none(
    snapshot: pl.DataFrame, chunks: Frame | Sequence[Frame] | None = None, authors: Frame | None = None
) -> CheckOutcome:
    """No user is on two sides, and no trained chunk shares its window with a test chunk.

    With `chunks` (MASKED_CHUNKS of all DataDAOs), the stronger: no trained chunk holds any message of a test user.
    """
    if chunks is not None:
        report = leakage_check(snapshot, chunks, authors)
        metrics = {name: float(count) for name, count in vars(report).items()}
        return CheckOutcome("split_leakage_none", report.clean, ERROR, metrics)
    sides = snapshot.group_by("user_id").agg(pl.col("split").n_unique())
    users = sides.filter(pl.col("split") > 1).height
    tested = snapshot.filter(split="test").select("window_id").unique()
    trained = snapshot.filter(pl.col("split").is_in(TRAINED_SPLITS))
    shared = trained.join(tested, on="window_id", how="semi").height
    metrics = {"users_in_two_splits": float(users), "trained_chunks_in_test_windows": float(shared)}
    return CheckOutcome("split_leakage_none", users == 0 and shared == 0, ERROR, metrics)


def tuned_not_worse_than_base(scores: pl.DataFrame, metric: str = "mrr", slice_: str = "all") -> CheckOutcome:
    """No paired difference `<metric>_difference` of a SCORES frame has its whole interval below zero.

    A difference without an interval (too few users) is judged by its value. Fails if there is none to judge.
    """
    rows = scores.filter(pl.col("metric") == f"{metric}_difference", pl.col("slice") == slice_)
    rows = rows.filter(pl.col("value").is_not_null())
    if rows.is_empty():
        return CheckOutcome("tuned_not_worse_than_base", False, WARNING, {"n": 0})
    worse = rows.filter(pl.coalesce("ci_high", "value") < 0)
    metrics = {
        "n": float(rows.height),
        "worse": float(worse.height),
        "better": float(rows.filter(pl.col("ci_low") > 0).height),
        "smallest_difference": rows["value"].to_numpy().min(),
        "without_interval": float(rows["ci_low"].null_count()),
    }
    return CheckOutcome("tuned_not_worse_than_base", worse.is_empty(), WARNING, metrics)


def monotone_funnel(funnel: pl.DataFrame) -> CheckOutcome:
    """No stage of a DATA_FUNNEL frame holds more than the stage it is a part of, and every lost record is counted."""
    violations = len(funnel_violations(funnel))
    return CheckOutcome("monotone_funnel", violations == 0, ERROR, {"n": funnel.height, "violations": violations})


def caps_enforced(snapshot: pl.DataFrame, max_chunks_per_user: int | None) -> CheckOutcome:
    """No history of a TRAINING_SNAPSHOT is longer than the cap."""
    over = cap_violations(snapshot, max_chunks_per_user)
    cap = {} if max_chunks_per_user is None else {"cap": float(max_chunks_per_user)}
    return CheckOutcome("caps_enforced", over == 0, ERROR, {"histories_over_cap": float(over), **cap})


def exactly_one_subject(chunks: Frame) -> CheckOutcome:
    """Every chunk of MASKED_CHUNKS has one SUBJECT (C9).

    SUBJECT's turns are as many as `n_subject_turns` and at least one, every speaker is SUBJECT, <Pn> or a role,
    the turns' columns are aligned, and no message is SUBJECT's in the chunks of two users.
    """
    speakers = pl.col("speakers")
    own = (speakers.list.eval(pl.element() == SUBJECT)).list.sum()
    named = speakers.list.eval(~pl.element().str.contains(SPEAKER)).list.any()
    rows = chunks.lazy()
    counts = rows.select(
        n=pl.len(),
        no_subject=(own < 1).sum(),
        miscounted=(own != pl.col("n_subject_turns")).sum(),
        unmasked_speakers=named.sum(),
        misaligned=(
            (speakers.list.len() != pl.col("turns").list.len())
            | (speakers.list.len() != pl.col("message_ids").list.len())
        ).sum(),
    ).collect()
    turns = rows.select("user_id", "speakers", "message_ids").explode("speakers", "message_ids")
    shared = (
        turns.filter(speakers == SUBJECT)
        .group_by("message_ids")
        .agg(pl.col("user_id").n_unique())
        .filter(pl.col("user_id") > 1)
        .select(pl.len())
        .collect()
        .item()
    )
    metrics = {name: float(count) for name, count in counts.row(0, named=True).items()}
    metrics["messages_of_two_subjects"] = float(shared)
    passed = not any(count for name, count in metrics.items() if name != "n")
    return CheckOutcome("exactly_one_subject", passed, ERROR, metrics)


def summaries_account_for_chunks(
    chunks: pl.DataFrame, summaries: pl.DataFrame, unsummarised: pl.DataFrame
) -> CheckOutcome:
    """Every chunk has one summary, or one row that says why it has none; no row is of another chunk (C23)."""
    listed = pl.concat([summaries.select("chunk_id"), unsummarised.select("chunk_id")])
    metrics: dict[str, float] = {
        "chunks": chunks.height,
        "missing": chunks.join(listed, on="chunk_id", how="anti").height,
        "repeated": listed.height - listed.n_unique(),
        "foreign": listed.join(chunks.select("chunk_id"), on="chunk_id", how="anti").height,
    }
    passed = not any(metrics[name] for name in ("missing", "repeated", "foreign"))
    return CheckOutcome("summaries_account_for_chunks", passed, ERROR, metrics)


def few_model_failures(summaries: pl.DataFrame, unsummarised: pl.DataFrame) -> CheckOutcome:
    """The language model gave no valid answer for at most 1% of the chunks; each is listed with its reason."""
    failed = unsummarised.filter(pl.col("reason") != "nothing_contributed").height
    total = summaries.height + unsummarised.height
    share = failed / max(1, total)
    return CheckOutcome("few_model_failures", share <= MAX_MODEL_FAILURES, WARNING, {"n": total, "share": share})


def evidence_is_subjects(koais: pl.DataFrame, chunks: pl.DataFrame) -> CheckOutcome:
    """At most 1% of the KOAIs rest on no turn, on one that is not there, or on one that is not SUBJECT's (C25)."""
    cited = koais.select("koai_id", "chunk_id", "evidence").join(chunks.select("chunk_id", "speakers"), on="chunk_id")
    turn = pl.col("speakers").list.get(pl.col("evidence"), null_on_oob=True)
    said = cited.explode("evidence").select("koai_id", subject=(turn == "SUBJECT").fill_null(False))
    wrong = said.group_by("koai_id").agg(pl.col("subject").all()).filter(~pl.col("subject")).height
    share = wrong / max(1, koais.height)
    return CheckOutcome(
        "evidence_is_subjects", share <= MAX_MODEL_FAILURES, WARNING, {"n": koais.height, "wrong": wrong}
    )


def extractions_account_for_chunks(
    chunks: pl.DataFrame, koais: pl.DataFrame, extractions: pl.DataFrame
) -> CheckOutcome:
    """Every chunk has one row that says how many KOAIs it has or why none, and that many are there (C23, C25)."""
    there = koais.group_by("chunk_id").agg(found=pl.len())
    counted = extractions.join(there, on="chunk_id", how="full", coalesce=True)
    metrics: dict[str, float] = {
        "chunks": chunks.height,
        "missing": chunks.join(extractions, on="chunk_id", how="anti").height,
        "foreign": extractions.join(chunks, on="chunk_id", how="anti").height,
        "miscounted": counted.filter(pl.col("n_koais").fill_null(0) != pl.col("found").fill_null(0)).height,
    }
    passed = not any(metrics[name] for name in ("missing", "foreign", "miscounted"))
    return CheckOutcome("extractions_account_for_chunks", passed, ERROR, metrics)
