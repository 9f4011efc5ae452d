"""The code location as a whole: what it declares, and what loading it costs."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from user_embeddings_dagster.definitions import defs
from user_embeddings_dagster.schema import TABLES

ROOT = Path(__file__).parents[1]
SNAPSHOT = ROOT / "tests" / "snapshots" / "assets.json"
HEAVY = ("torch", "transformers", "peft", "lancedb", "lance", "dspy", "great_expectations", "vllm", "matplotlib")


def described() -> dict[str, dict]:
    """Every asset as a reader of the UI meets it."""
    specs = defs.resolve_all_asset_specs()
    checks = defs.resolve_asset_graph().asset_check_keys
    return {
        spec.key.to_user_string(): {
            "grain": (spec.description or "").split(".")[0],
            "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
            "group": spec.group_name,
            "kinds": sorted(spec.kinds),
            "owners": sorted(spec.owners),
            "partitions": type(spec.partitions_def).__name__ if spec.partitions_def else None,
            "automated": spec.automation_condition is not None,
            "checks": sorted(key.name for key in checks if key.asset_key == spec.key),
            "columns": [c.name for c in spec.metadata["dagster/column_schema"].columns]
            if "dagster/column_schema" in spec.metadata
            else None,
        }
        for spec in specs
    }


def test_assets_are_those_of_the_snapshot():
    """Any change to the graph is a change of this file: rewrite it with `python -m tests.test_definitions`."""
    assert described() == json.loads(SNAPSHOT.read_text())


def test_every_asset_says_its_grain_owner_kind_and_group():
    for name, asset in described().items():
        assert asset["grain"].startswith("One row per"), name
        assert asset["owners"], name
        assert 1 <= len(asset["kinds"]) <= 3, name
        assert asset["group"] not in (None, "default"), name


def test_asset_keys_are_nouns_and_tables_declare_their_columns():
    assets = described()
    declared = {name: asset["columns"] for name, asset in assets.items() if asset["columns"]}
    for name in ("messages", "masked_chunks", "chunk_summaries", "training_snapshot", "hard_negatives"):
        assert declared[name] == list(TABLES[name].schema), name


def warnings() -> set[str]:
    """Names of the domain checks whose outcome is a warning, as the source says."""
    trees = (ast.parse(path.read_text()) for path in ROOT.glob("user_embeddings_dagster/**/*.py"))
    calls = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {
        ast.literal_eval(call.args[0])
        for call in calls
        if ast.unparse(call.func) == "CheckOutcome" and "WARNING" in map(ast.unparse, call.args)
    }


def test_a_check_that_only_warns_holds_nothing_back():
    """Automation waits for blocking checks alone, and a warning stops no run: it would wait for good."""
    graph = defs.resolve_asset_graph()
    blocking = {key.name for key in graph.asset_check_keys if graph.get_check_spec(key).blocking}
    assert {"not_collapsed", "few_model_failures"} <= warnings()
    assert {"finite_vectors", "unit_norm", "split_leakage_none"} <= blocking - warnings()
    assert blocking & warnings() == set()


def test_definitions_validate():
    dg.Definitions.validate_loadable(defs)


@pytest.fixture(scope="module")
def loaded_modules() -> dict:
    """Modules and seconds of loading the code location in a fresh interpreter, beside those of Dagster alone."""
    code = (
        "import json, sys, time; a = time.process_time(); import dagster; b = time.process_time();"
        "import user_embeddings_dagster.definitions; c = time.process_time();"
        "print(json.dumps({'dagster': b - a, 'location': c - b, 'modules': sorted(sys.modules)}))"
    )
    return json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


@pytest.mark.parametrize("module", HEAVY)
def test_code_location_loads_without(loaded_modules, module):
    """Law 2: a code location loads in seconds because no heavy library is imported at module level."""
    assert module not in loaded_modules["modules"]


def test_code_location_loads_in_seconds(loaded_modules):
    """Under 4 CPU seconds more than `import dagster`."""
    assert loaded_modules["location"] < 4.0


if __name__ == "__main__":
    SNAPSHOT.parent.mkdir(exist_ok=True)
    SNAPSHOT.write_text(json.dumps(described(), indent=1, sort_keys=True) + "\n")
