"""Makes what tests share importable from every test module. Not `tests` itself: tests/vllm would pass for vLLM."""

import gc
import sys
from pathlib import Path

from user_embeddings_dagster.settings import collect_rarely

sys.path.insert(0, str(Path(__file__).parent / "support"))
collect_rarely()


def pytest_collection_finish():
    """What was imported for the tests stays to their end: nobody needs to look through it for garbage again."""
    gc.freeze()
