"""Every benchmark, both sides of each ratio in one run: `python -m benchmarks`."""

import subprocess
import sys

SCRIPTS = (
    "ingestion_reddit",
    "ingestion_json",
    "sealing",
    "encoding",
    "training_item_encoder",
    "training_sequence_encoder",
    "user_update",
    "masking",
    "masking_recall",
    "llm_faults",
    "summary_faults",
    "refinement",
    "supply_chain",
)


def main() -> int:
    """Run each script in a process of its own, so that peak memory is its own; returns 1 if one failed."""
    failed = 0
    for script in SCRIPTS:
        print(f"== {script}", flush=True)
        failed += subprocess.run([sys.executable, "-m", f"benchmarks.{script}"], check=False).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
