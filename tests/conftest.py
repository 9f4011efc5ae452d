"""Makes what tests share importable from every test module. Not `tests` itself: tests/vllm would pass for vLLM."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))
