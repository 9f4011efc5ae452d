"""F3: fifteen routes by which Dagster stores what a step raises, returns, prints or is given; all closed in our assets.

Each route is walked with personal text of its own; then everything below DAGSTER_HOME is decoded and searched. The
control is an asset as anybody would write it, on an instance as Dagster sets it up: it shows at least 12 of the 15.
"""

import ast
import io
import json
import logging
import os
import typing
import zipfile
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
import pydantic
import pytest

from assets import messages as messages_module
from assets.containment import NoValues, contain, containing, is_contained, metadata_value
from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.definitions import defs
from user_embeddings_dagster.exports.opening import open_raw
from user_embeddings_dagster.privacy.audit.canaries import scan
from user_embeddings_dagster.privacy.containment import ContainedError, contained
from user_embeddings_dagster.runner import open_instance

ROUTES = (
    "exception", "pydantic", "polars", "duckdb", "os_error", "cause", "note", "metadata", "check_metadata", "io_value",
    "context_log", "stdout", "stderr", "python_logging", "pipes",
)  # fmt: skip
JOB = """
import sys
from pathlib import Path
from typing import Any
from training.job import run
def train(job):
    print(job.config["text"], file=sys.stderr)
    int(job.config["text"])
sys.exit(run("spilling", train))
"""


PLAIN_JOB = """
import json, sys
from pathlib import Path
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    int(json.loads((Path(sys.argv[2]) / "config.json").read_text())["text"])
"""


def personal(route: str) -> str:
    return f"Jane {route} Roe, +1 212 555 0{ROUTES.index(route):03}"


def raised_by_a_library(route: str) -> None:
    """What libraries raise with the text in it."""
    text = personal(route)
    if route == "exception":
        {}[text]
    if route == "pydantic":
        pydantic.TypeAdapter(int).validate_python(text)
    if route == "polars":
        pl.Series([text]).cast(pl.Int64)
    if route == "duckdb":
        duckdb.execute("SELECT CAST(? AS INTEGER)", [text])
    if route == "os_error":
        (Path("/") / text).read_bytes()
    if route == "cause":
        try:
            int(text)
        except ValueError as error:
            raise RuntimeError("a step failed") from error
    if route == "note":
        error = RuntimeError("a step failed")
        error.add_note(text)
        raise error


def walk(route: str, context: dg.AssetExecutionContext, folder: Path) -> object:
    """One route, as code that does not care would walk it; what the step then gives back."""
    text = personal(route)
    raised_by_a_library(route)
    if route == "context_log":
        context.log.info(text)
    if route == "stdout":
        print(text, flush=True)
    if route == "stderr":
        os.write(2, text.encode() + b"\n")
    if route == "python_logging":
        logging.getLogger("somebody").warning(text)
    if route == "pipes":
        jobs = TrainingJobs(package="spilling_jobs")
        jobs.run(context, "spilling", folder / "inputs", folder / "output")
    check = dg.AssetCheckResult(passed=True, metadata={"text": text} if route == "check_metadata" else {})
    if route == "io_value":
        return text
    return dg.MaterializeResult(metadata={"text": text} if route == "metadata" else {}, check_results=[check])


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    package = tmp_path / "code" / "spilling_jobs"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "spilling.py").write_text(JOB)
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "config.json").write_text(json.dumps({"text": personal("pipes")}))
    paths = [str(tmp_path / "code"), str(Path(__file__).parents[1])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    return tmp_path


def leaky(folder: Path) -> list[dg.AssetsDefinition]:
    """One asset per route."""

    def of(route: str) -> dg.AssetsDefinition:
        @dg.asset(name=route, check_specs=[dg.AssetCheckSpec("fine", asset=route)] if route != "io_value" else None)
        def step(context: dg.AssetExecutionContext):
            return walk(route, context, folder)

        return step

    return [of(route) for route in ROUTES]


def found_in(home: Path) -> set[str]:
    result = scan(home, [personal(route) for route in ROUTES])
    assert result.files > 3 and not result.undecoded
    return {route for route in ROUTES if personal(route) in result.canaries}


def test_an_asset_as_anybody_would_write_it_shows_at_least_12_of_15(folder):
    """The control: the same routes, with the IO manager and the settings that Dagster has by itself."""
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    (folder / "code" / "spilling_jobs" / "spilling.py").write_text(PLAIN_JOB)
    with dg.DagsterInstance.get() as instance:
        dg.materialize(leaky(folder), instance=instance, raise_on_error=False)
    assert len(found_in(home)) >= 12, found_in(home)


def test_our_instance_and_containment_close_15_of_15(folder):
    """F3: nothing of any route is in DAGSTER_HOME; what our own code says of an error still is."""
    home = folder / "home"
    # Log lines are closed by what may stand in them (below), so that here nothing is said.
    quiet = [asset for asset in leaky(folder) if asset.key.to_user_string() != "context_log"]
    with open_instance(home) as instance:
        result = dg.materialize(
            contain(quiet), instance=instance, resources={"io_manager": NoValues()}, raise_on_error=False
        )
    assert found_in(home) == set()
    assert {event.step_key for event in result.all_events if event.is_step_failure} == {
        *ROUTES[:7],
        "io_value",
        "pipes",
    }
    assert scan(home, ["its text is withheld"]).canaries


def test_the_messages_asset_stores_nothing_of_what_it_reads(folder, monkeypatch):
    """F3, with the asset itself: broken exports full of somebody, a reader that raises, progress that speaks."""
    home, root = folder / "home", folder / "data"
    landing = root / "landing" / "dao"
    landing.mkdir(parents=True)
    who = [f"Jane Roe number {n} of Elm Street" for n in range(6)]
    (landing / f"{who[0]}.json").write_text('{"messages": [' + json.dumps(who[1]))
    (landing / f"export_{who[2]}.csv").write_text(f"id,{who[3]}\n{who[4]},{who[4]}")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr(f"{who[5]}/comments.csv", f"{who[5]}\n")
    (landing / "broken.zip").write_bytes(archive.getvalue()[:-20])
    monkeypatch.setenv("USER_EMBEDDINGS_DATA", str(root))
    with open_instance(home) as instance:
        instance.add_dynamic_partitions("datadao", ["dao"])
        resources = {"store": Store(data=str(root)), "io_manager": NoValues()}
        runs = {"instance": instance, "partition_key": "dao", "resources": resources, "raise_on_error": False}
        assert dg.materialize([messages_module.messages], **runs).success
        monkeypatch.setattr(messages_module.messages.node_def, "_retry_policy", None)
        for route in ("exception", "cause"):

            def build(*_, progress, route=route, **__):
                progress(personal(route), {})
                raised_by_a_library(route)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(messages_module, "build_messages", build)
                assert not dg.materialize([messages_module.messages], **runs).success
    assert found_in(home) == set()
    assert scan(home, who).canaries == set()
    seen = "".join(path.name for path in landing.iterdir()) + "".join(
        open_raw(path, Store(data=str(root)).contributor_keys).read().decode("latin-1") for path in landing.iterdir()
    )
    assert sum(person in seen for person in who) >= 4  # the control: it was there to be read


@pytest.mark.parametrize("key", ["Jane Roe +1 212", "../../etc", "x" * 64, "Ünal"])
def test_a_partition_named_like_a_person_is_refused_without_its_name(folder, key):
    """Keys become names of folders; the sensor registers none of these, and a run for one does nothing."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("datadao", [key])
        result = dg.materialize(
            [messages_module.messages], instance=instance, partition_key=key, raise_on_error=False,
            resources={"store": Store(data=str(folder)), "io_manager": NoValues()},
        )  # fmt: skip
    failure = next(event for event in result.all_events if event.is_step_failure)
    told = failure.step_failure_data.user_failure_data
    assert told and "a partition's key is" in (told.description or "")
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    assert not (folder / "tables").exists()


def test_every_asset_of_the_code_location_is_contained():
    contained_assets = [asset for asset in defs.assets or [] if isinstance(asset, dg.AssetsDefinition)]
    assert len(contained_assets) > 20
    assert [asset.keys for asset in contained_assets if asset.is_executable and not is_contained(asset)] == []
    assert isinstance((defs.resources or {})["io_manager"], NoValues)


def test_no_configuration_takes_free_text():
    """Run configuration is stored as given: fields are numbers, flags, or words of a fixed set."""
    # Of fixed sets; names of DataDAOs; a folder and a model that the operator names.
    words = {"split", "pairs", "mixer", "ranker", "negatives", "public_datadaos", "labelled", "person_model"}
    words |= {"validator", "judge", "preset", "injection"}
    for asset in defs.assets or []:
        if not isinstance(asset, dg.AssetsDefinition) or not asset.is_executable:
            continue
        assert isinstance(asset.node_def, dg.OpDefinition)
        hints = typing.get_type_hints(typing.cast(Any, asset.node_def.compute_fn).decorated_fn)
        config = hints.get("config")
        for name, field in config.model_fields.items() if config else ():
            kinds = set(typing.get_args(field.annotation)) or {field.annotation}
            assert str not in kinds or name in words, (asset.keys, name)


def log_calls(tree: ast.AST) -> list[ast.Call]:
    """Calls of `….log.info` and the like."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("info", "warning", "error", "debug", "critical", "exception", "log")
        and isinstance(node.func.value, ast.Attribute | ast.Name)
        and (node.func.value.attr if isinstance(node.func.value, ast.Attribute) else node.func.value.id) == "log"
    ]


# What may stand in a log line: numbers, also of lines, DataDAOs, fixed words of ours, versions, names of files about a
# DataDAO.
LOGGED = {
    "stage", "kind", "seed", "asked.height", "len(models.get(kind, []))", "what", "done", "total", "done / total",
    "left", "unnamed", "raw", "datadao", "file", "line", "reason", "subjects", "GRANTS", "STATEMENT", "name",
    "partition", "dimension", "where", "lines_of_nobody", "PASSED_OVER", "figures['rows']",
    "figures['memory_mb']",
}  # fmt: skip


def spoken(tree: ast.AST) -> list[str]:
    """What is put into log lines, as source."""
    parts = []
    for call in log_calls(tree):
        for argument in call.args:
            if isinstance(argument, ast.JoinedStr):
                parts += [ast.unparse(v.value) for v in argument.values if isinstance(v, ast.FormattedValue)]
            elif not isinstance(argument, ast.Constant):
                parts.append(ast.unparse(argument))
    return parts


def test_log_lines_of_assets_hold_numbers_and_fixed_words():
    """The route of context.log: what is interpolated is on a list that people read."""
    root = Path(__file__).parents[1]
    found = {}
    for path in sorted((root / "assets").glob("*.py")):
        for part in spoken(ast.parse(path.read_text())):
            found.setdefault(part, path.name)
    assert {part: name for part, name in found.items() if part not in LOGGED} == {}
    assert spoken(ast.parse("context.log.info(f'{message.text}')")) == ["message.text"]  # the lint sees it


def test_errors_of_ours_keep_their_text_and_no_chain():
    def ours() -> None:
        from user_embeddings_dagster.privacy.retention.windows import windows

        windows("[")

    with pytest.raises(ValueError, match="not a JSON object") as caught:
        containing(ours)()
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    with pytest.raises(ContainedError, match=r"ValueError at .*withheld"):
        containing(lambda: int(personal("exception")))()
    assert contained(ValueError("made, never raised")).args == ("made, never raised",)


def test_metadata_keeps_numbers_hashes_and_listed_words():
    assert metadata_value("n", 3) == 3 and metadata_value("x", 0.5) == 0.5
    assert metadata_value("version", "0065851ed23ef8aed1987ef5695504d0") == "0065851ed23ef8aed1987ef5695504d0"
    assert metadata_value("device", "cuda:0") == "cuda:0"
    for name, value in (
        ("somebody", personal("metadata")),
        ("note", "hello"),
        ("path", dg.MetadataValue.path("/x")),
        ("j", {"a": "1"}),
    ):
        assert "withheld" in metadata_value(name, value).value
    assert "\u202e" not in metadata_value("t", dg.MetadataValue.md("a\u202eb")).value
