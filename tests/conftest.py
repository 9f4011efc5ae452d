"""Makes what tests share importable from every test module. Not `tests` itself: tests/vllm would pass for vLLM."""

import gc
import sys
from pathlib import Path

from user_embeddings_dagster.settings import collect_rarely

sys.path.insert(0, str(Path(__file__).parent / "support"))
collect_rarely()


# Files of long tests, longest first: begun last, they would keep one worker busy after the others have ended.
FIRST = (
    "test_end_to_end",
    "test_leaks",
    "test_canaries_in_language_model_paths",
    "test_measured",
    "test_automation",
    "reliability/",
    "erasure/",
    "backup/",
    "test_retention",
    "test_personalised_decoder",
)


def pytest_collection_modifyitems(items):
    """Those first."""
    items.sort(key=lambda item: next((place for place, name in enumerate(FIRST) if name in item.nodeid), len(FIRST)))


def pytest_collection_finish():
    """What was imported for the tests stays to their end: nobody needs to look through it for garbage again."""
    gc.freeze()
