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

# Withdrawals mark models while the ledger is made: what reads a model comes in a run after it. The model's check
# may_be_read, which the ledger records, then holds back what reads it for as long as the model is marked.
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
# A model's check must have passed: while a training runs it has neither failed nor passed, and the marked version is
# read until it ends.
_READABLE = dg.AutomationCondition.all_checks_match(dg.AutomationCondition.check_passed(), blocking_only=True)
# User embeddings read the item encoder too, which they do not depend on.
ITEM_ENCODER_READABLE = dg.AutomationCondition.asset_matches(
    "item_embeddings", dg.AutomationCondition.asset_matches("item_encoder", _READABLE)
).with_label("item_encoder_readable")
EAGER_WITH_BOTH_ENCODERS = EAGER_AFTER_LEDGER & ~SEQUENCE_ENCODER_BEHIND & ITEM_ENCODER_READABLE

# What is summarised does not wait for a refinement, which costs money and is asked for by hand; but for another one
# while the program is marked. Before the first refinement nothing can be marked, and summaries come with the ledger.
_PROGRAM = "summary_program"
_NO_PROGRAM = dg.AutomationCondition.asset_matches(_PROGRAM, dg.AutomationCondition.missing())
PROGRAM_READABLE = _NO_PROGRAM | dg.AutomationCondition.asset_matches(_PROGRAM, _READABLE)
EAGER_WITH_PROGRAM = (
    EAGER.ignore(dg.AssetSelection.assets(_PROGRAM))
    & (_NO_PROGRAM | _AFTER_LEDGER).with_label("after_the_ledger")
    & PROGRAM_READABLE.with_label("summary_program_readable")
)

# Warned about when no DataDAO received anything for a quarter, overdue after half a year. Dagster looks at the latest
# drop of them all: one that gets drops keeps the silent ones fresh.
DROPS_FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=180), warn_window=timedelta(days=90))
MODELS_FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=60), warn_window=timedelta(days=30))
