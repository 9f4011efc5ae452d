"""Policy over the whole graph: owners, retries, pools and automation, said once."""

from datetime import timedelta

import dagster as dg

DATA = ["team:data-engineering"]
PRIVACY = ["team:privacy"]
ML = ["team:machine-learning"]

# A full disk, a killed child or a lost connection may pass; what fails three times needs a person.
RETRY = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)

# LanceDB commits, torch jobs and the DuckDB file each take one writer at a time.
LANCE_WRITE, GPU, SCORES_WRITE, LLM = "lance_write", "gpu", "scores_write", "llm"

# A new drop flows down to vectors by itself, stopping where a blocking check failed. Training is not eager:
# one new chat message must not start a GPU job.
EAGER = dg.AutomationCondition.eager() & dg.AutomationCondition.all_deps_blocking_checks_passed()

# Withdrawals mark models while the ledger is made: what reads a model comes in a run after it. The item encoder's check
# may_be_read, which the ledger records, then holds back item vectors for as long as the model is marked.
_AFTER_LEDGER = ~dg.AutomationCondition.asset_matches("consent_ledger", dg.AutomationCondition.will_be_requested())
EAGER_AFTER_LEDGER = EAGER & _AFTER_LEDGER.with_label("after_the_ledger")

# User embeddings wait while the item encoder is newer than the sequence encoder that reads its vectors: between two
# trainings they would only fail. (What was trained while automation was off is not known here, and is refused there.)
_NEW = dg.AutomationCondition.newly_updated()
_NEW_ITEMS = dg.AutomationCondition.asset_matches(
    "item_embeddings", dg.AutomationCondition.asset_matches("item_encoder", _NEW)
)
SEQUENCE_ENCODER_BEHIND = _NEW_ITEMS.since(dg.AutomationCondition.asset_matches("sequence_encoder", _NEW)).with_label(
    "sequence_encoder_behind"
)
# The sequence encoder is trained on people that the item encoder is trained on, and marked with it. Its check must have
# passed: while a training runs it has neither failed nor passed, and the marked version is read until it ends.
ITEM_ENCODER_READABLE = dg.AutomationCondition.asset_matches(
    "item_embeddings",
    dg.AutomationCondition.asset_matches(
        "item_encoder",
        dg.AutomationCondition.all_checks_match(dg.AutomationCondition.check_passed(), blocking_only=True),
    ),
).with_label("item_encoder_readable")
EAGER_WITH_BOTH_ENCODERS = EAGER_AFTER_LEDGER & ~SEQUENCE_ENCODER_BEHIND & ITEM_ENCODER_READABLE

# Warned about when no DataDAO received anything for a quarter, overdue after half a year. Dagster looks at the latest
# drop of them all: one that gets drops keeps the silent ones fresh.
DROPS_FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=180), warn_window=timedelta(days=90))
MODELS_FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=60), warn_window=timedelta(days=30))
