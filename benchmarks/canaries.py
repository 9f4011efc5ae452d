"""Look for canaries in every file of a folder, decoded: python -m benchmarks.canaries FOLDER CANARY…"""

import argparse
import sys
from pathlib import Path

from user_embeddings_dagster.privacy.audit.canaries import scan


def main() -> int:
    """Print what was found by file; returns 1 if anything was, or if a file could not be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("canary", nargs="+")
    options = parser.parse_args()
    result = scan(options.folder, options.canary)
    for file, count in result.by_file.items():
        print(f"{count:8} {file}")
    for name in result.undecoded:
        print(f"undecoded: {name}")
    print(f"{sum(result.by_file.values())} hits in {len(result.by_file)} of {result.files} files")
    return 1 if result.hits or result.undecoded else 0


if __name__ == "__main__":
    sys.exit(main())
