import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from user_embeddings_dagster import cli, run_settings
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.schema import CONSENT_LEDGER, MASKED_CHUNKS, MESSAGES, REJECTED_GRANTS
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables


@pytest.fixture
def real(tmp_path, monkeypatch, capsys):
    """`user-embeddings real` with a config file of some content: exit status, config of the run, standard error."""
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "a.json").write_text("{}")
    started = []
    monkeypatch.setattr(cli, "_run", lambda layout, dimensions, ops: started.append(ops) or 0)

    def command(content=None, *corpora):
        config = tmp_path / "config.json"
        if content is not None:
            config.write_text(content)
        options = ["--config", str(config)] if content is not None else []
        arguments = ["--data", str(tmp_path / "data"), "real", "--exports", str(tmp_path / "exports"), *options]
        try:
            status = cli.main([*arguments, *(corpora or ["some=*.json"])])
        except SystemExit as exit:
            status = exit.code
        return status, started, capsys.readouterr().err

    return command


def test_real_exports_run_with_the_default_caps(real):
    assert real()[:2] == (0, [run_settings.REAL])


def exported(tmp_path, *names):
    for name in names:
        path = tmp_path / "exports" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def linked(tmp_path):
    """What every link of the landing folder leads to, by its place."""
    landing = tmp_path / "data" / "landing"
    found = sorted(path for path in landing.rglob("*") if path.is_symlink())
    return {str(path.relative_to(landing)): str(path.readlink().relative_to(tmp_path / "exports")) for path in found}


def test_what_opens_the_ui_is_told_for_this_data_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli._opens(Layout(tmp_path / "data")) == "`make dev`"
    assert cli._opens(Layout(tmp_path / "data-real")) == f"`user-embeddings --data {tmp_path}/data-real dev`"
    assert cli._opens(Layout(tmp_path / "a b")) == f"`user-embeddings --data '{tmp_path}/a b' dev`"


def test_exports_are_linked_by_what_their_pattern_matches(real, tmp_path):
    """Every Telegram export is a result.json. What lay at the top before lies there still: a name tells an account."""
    exported(tmp_path, "ann/result.json", "bob/result.json", "tg/c.json", "tg/consent.csv", "tg/.DS_Store")
    assert real(None, "both=*/result.json", "tg=tg/*", "tg=bob/*")[0] == 0
    assert linked(tmp_path) == {
        "both/ann/result.json": "ann/result.json", "both/bob/result.json": "bob/result.json",
        "tg/c.json": "tg/c.json", "tg/consent.csv": "tg/consent.csv", "tg/result.json": "bob/result.json",
    }  # fmt: skip
    assert not (tmp_path / "data" / "landing" / "tg" / "datadao.json").exists()


@pytest.mark.parametrize(
    ("corpora", "message"),
    [
        (["tg=ann/*.json", "tg=bob/*.json"], "tg/result.json would be both"),
        (["tg=*/result.json", "up=../*.json"], "up=../*.json: expected a pattern below --exports"),
        (["tg=*/result.json", "top=/exports/*.json"], "top=/exports/*.json: expected a pattern below --exports"),
        (["tg=*/result.json", "x=**.json"], "'**' can only be"),
        (["tg=*/result.json", "x=."], "x=.: expected a pattern below --exports"),
    ],
)
def test_patterns_that_cannot_be_meant_link_nothing(real, tmp_path, corpora, message):
    exported(tmp_path, "ann/result.json", "bob/result.json")
    status, started, error = real(None, *corpora)
    assert (status, started) == (2, []) and message in error and not (tmp_path / "data").exists()


def test_a_contributors_drop_is_not_replaced(real, tmp_path):
    drop = tmp_path / "data" / "landing" / "some" / "a.json"
    drop.parent.mkdir(parents=True)
    drop.write_text("the only copy")
    status, started, error = real()
    assert (status, started) == (2, []) and str(drop) in error and "nothing was replaced" in error
    assert drop.read_text() == "the only copy"


def test_a_config_file_takes_their_place(real):
    config = {"masked_chunks:some": {"max_chunks_per_user": 3}, "item_encoder": {"steps": 2}}
    assert real(json.dumps(config))[:2] == (0, [config])


def test_the_demo_takes_settings_too(real, tmp_path, monkeypatch):
    """C43: larger sample exports are trained on as long as real ones."""
    monkeypatch.setattr(cli, "_samples", lambda options, layout: 0)
    started = []
    monkeypatch.setattr(cli, "_run", lambda layout, dimensions, ops: started.append(ops) or 0)
    settings = tmp_path / "config.json"
    settings.write_text('{"base_decoder": {"steps": 2}}')
    for options in ([], ["--config", str(settings)]):
        assert cli.main(["--data", str(tmp_path / "data"), "demo", *options]) == 0
    assert started == [{}, {"base_decoder": {"steps": 2}}]


def test_a_dimension_that_is_no_partition_runs_nothing(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["--data", str(tmp_path / "data"), "demo", "--dimensions", "64", "33"])
    assert "'33' is none of" in capsys.readouterr().err and not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting"),
        ('{"item_encoder": 3}', "object of objects"),
        ('{"nothing:x": {}}', "no assets: ['nothing:x']"),
        ('{"item_encoder": {"stepz": 3}}', "item_encoder: Received unexpected config entry"),
        ('{"masked_chunks:some": {"max_users": "x"}}', "masked_chunks:some: Invalid scalar"),
        ('{"item_encoder:some": {"steps": 3}}', "item_encoder has no such partition"),
        ('{"sequence_encoder:65": {"steps": 3}}', "sequence_encoder has no such partition"),
        ('{"masked_chunks:A Name": {"max_users": 3}}', "masked_chunks has no such partition"),
        ('{"masked_chunks:some": {"max_users": -3}}', "max_users: Input should be greater than or equal to 1"),
        ('{"unsummarised_chunks": {"max_failed_share": 0.1}}', "no step of its own makes it"),
    ],
)
def test_a_config_that_is_none_starts_nothing(real, tmp_path, content, message):
    status, started, error = real(content)
    assert (status, started) == (2, []) and "config.json" in error and message in error
    assert not (tmp_path / "data").exists()


def test_a_setting_from_a_variable_that_is_not_set_is_told_without_a_stack_trace(real, monkeypatch):
    monkeypatch.delenv("STEPS", raising=False)
    status, started, error = real('{"item_encoder": {"steps": {"env": "STEPS"}}}')
    assert (status, started) == (2, []) and "item_encoder: " in error and "STEPS" in error
    assert "Stack Trace" not in error and 'File "' not in error


def test_a_step_without_settings_takes_none(real):
    assert real('{"messages": {}}')[:2] == (0, [{"messages": {}}])
    status, started, error = real('{"messages": {"x": 1}}')
    assert status == 2 and len(started) == 1 and 'messages: Received unexpected config entry "x"' in error


def test_the_settings_that_come_with_it_are_taken(tmp_path):
    for settings in (Path(cli.__file__).parents[1] / "docs" / "encoders.json", tmp_path / "real.json"):
        if not settings.exists():
            settings.write_text(json.dumps(run_settings.REAL))
        assert run_settings.of_file(str(settings)) == json.loads(settings.read_text())


@pytest.fixture
def begun(tmp_path) -> list[str]:
    """Options of a data root into which nobody has dropped anything yet."""
    (tmp_path / "data" / "landing").mkdir(parents=True)
    return ["--data", str(tmp_path / "data")]


@pytest.mark.parametrize(
    "command",
    ["scores", "trace a 00 1", "consent a", "erase --resume", "erase --account reddit:somebody", "purge",
     "purge --dry-run", "access anchor", "access verify-log", "access enrol 00 ed25519:00", "seal", "backup x",
     "export-model --to x"],
)  # fmt: skip
@pytest.mark.parametrize("folder", ["mistyped", "."])
def test_a_data_root_that_is_none_gets_no_keys(tmp_path, capsys, command, folder):
    """An erasure there was clean and told of nothing left; what `access` wrote, nothing would ever read."""
    (tmp_path / "messages.txt").write_text("of somebody's")
    assert cli.main(["--data", str(tmp_path / folder), *command.split()]) == 2
    assert "no data root there" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["messages.txt"]


def test_a_record_is_not_traced_before_there_are_tables(begun, capsys):
    assert cli.main([*begun, "trace", "some", "0" * 64, "1"]) == 2
    assert capsys.readouterr().err == "messages/some has not been materialised yet\n"


@pytest.mark.parametrize("user", ["zzz", "A" * 32, "f" * 33, ""])
def test_only_a_user_id_is_erased(begun, capsys, user):
    assert cli.main([*begun, "erase", user]) == 2
    said = capsys.readouterr().err
    assert "32 hexadecimal digits" in said and "--account" in said


@pytest.mark.parametrize(
    ("name", "instead"),
    [(name, what) for name in ("contributors.csv", "consent.csv") for what in ("link", "folder")]
    + [("contributors.csv", "conflict")],
)
def test_an_erasure_waits_until_what_names_people_can_be_read(begun, tmp_path, capsys, instead, name):
    """Which of the accounts are the person's, and their grants: nothing is looked for or begun before."""
    path = tmp_path / "data" / "landing" / "dao" / name
    path.parent.mkdir()
    if instead == "link":
        path.symlink_to(tmp_path / "unmounted" / name)
    elif instead == "folder":
        path.mkdir()
    else:
        path.write_text("contributor,account\nann,x\nbob,x\n")
    for person in (["0" * 32], ["--account", "reddit:somebody"]):
        assert cli.main([*begun, "erase", *person]) == 2
        said = capsys.readouterr().err
        assert f"dao/{name}" in said and "looking for them" not in said
    assert not list(Layout(tmp_path / "data").erasures.glob("*"))


def test_an_erasure_of_nobody_is_told_from_one_of_somebody(begun, capsys):
    """C15: a misspelt account leaves the person where they are."""
    data = [*begun, "erase"]
    assert cli.main([*data, "--account", "reddit:mispelt"]) == 0
    assert "NOTHING WAS REMOVED" in capsys.readouterr().out
    assert cli.main([*data, "--resume"]) == 0
    assert "no erasure was left half way" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (None, "no *.safetensors there"),
        ("config.json", "no *.safetensors there"),
        ("modeling.py", "modeling.py: a pickle or code"),
        ("other.safetensors", "other.safetensors: not a safetensors file"),
    ],
)
def test_what_is_no_model_is_not_sealed(tmp_path, capsys, file, message):
    """A folder that is mistyped is not made either."""
    folder = tmp_path / "model"
    if file is not None:
        folder.mkdir()
        (folder / file).write_text("{}")
    if file == "modeling.py":
        header = b"{}"
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["seal-model", str(folder)]) == 2
    said = capsys.readouterr()
    assert str(folder) in said.err and message in said.err and "sealed as" not in said.err
    assert sorted(tmp_path.rglob("*")) == before
    if file == "modeling.py":
        (folder / file).unlink()
        assert cli.main(["seal-model", str(folder)]) == 0
        assert (folder / "manifest.json").exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TORCH_THREADS", "many"),
        ("TORCH_THREADS", "0"),
        ("REPORT_MIN_PEOPLE", "x"),
        ("SEAL", "maybe"),
        ("ERASED_CHECKPOINTS", "keep"),
        ("RETENTION", '{"messages": 99999999999}'),
        ("RETENTION", '{"nope": 1}'),
    ],
)
def test_a_setting_that_cannot_be_is_told_before_anything_runs(tmp_path, capsys, monkeypatch, variable, value):
    monkeypatch.setenv(f"USER_EMBEDDINGS_{variable}", value)
    assert cli.main(["--data", str(tmp_path / "data"), "samples"]) == 2
    assert f"USER_EMBEDDINGS_{variable}" in capsys.readouterr().err and not (tmp_path / "data").exists()


def test_a_data_root_that_is_a_file_is_told(tmp_path, capsys):
    (tmp_path / "data").write_text("")
    assert cli.main(["--data", str(tmp_path / "data"), "consent", "some"]) == 2
    assert "a data root is a folder" in capsys.readouterr().err


def test_too_few_contributors_are_told_before_the_graph_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_run", lambda layout, dimensions, ops: pytest.fail("it ran"))
    assert cli.main(["--data", str(tmp_path / "data"), "demo", "--contributors", "3"]) == 2
    assert capsys.readouterr().err == "contributors: 3 is fewer than 20\n"


def test_samples_take_no_place_of_exports(tmp_path, capsys):
    """C14: a consent.csv of people's is not replaced. Samples are written again over samples."""
    consent = tmp_path / "landing" / "telegram" / "consent.csv"
    consent.parent.mkdir(parents=True)
    consent.write_text("grants of people")
    command = ["--data", str(tmp_path), "samples", "--contributors", "20"]
    assert cli.main(command) == 2
    assert "telegram may be no samples; nothing was written" in capsys.readouterr().err
    assert consent.read_text() == "grants of people" and list(tmp_path.rglob("*.*")) == [consent]
    consent.unlink()
    consent.parent.rmdir()
    assert [cli.main(command), cli.main(command)] == [0, 0] and consent.read_text().startswith("grant_id,")


PLACE = {"raw_sha256": "5" * 64, "raw_member": "", "raw_location": 7}


def test_a_record_without_a_message_or_without_a_chunk_is_told(begun, tmp_path, capsys):
    """C7: before a training too."""
    row = {name: "" if dtype == pl.String else None for name, dtype in MESSAGES.schema.items()}
    row |= {"is_subject": True, "message_id": "a" * 32, **PLACE}
    lake = Lake(tmp_path / "data")
    lake.commit(MESSAGES, pl.DataFrame([row], MESSAGES.schema), "some")
    lake.commit(MASKED_CHUNKS, MASKED_CHUNKS.empty(), "some")
    for line, out, err in (("7", f"message {'a' * 32} in no chunk\n", ""), ("8", "", "no message was read there")):
        assert cli.main([*begun, "trace", "some", "5" * 64, line]) == 1
        said = capsys.readouterr()
        assert said.out == out and said.err.startswith(err)


@pytest.mark.parametrize(
    ("place", "content", "command", "message"),
    [
        ("keys/identity.key", "zz", "erase --account reddit:somebody", "identity.key: not a key"),
        ("keys/master.key", "ab" * 32, "seal --check", "contributors.sqlite: made with another master key"),
        ("keys/contributors.sqlite", "zz" * 99, "erase --resume", "contributors.sqlite: damaged, no SQLite file"),
        ("keys/erased.json", "zz", "erase --account reddit:somebody", "erased.json: damaged, not JSON"),
        ("keys/erased_names.json", "zz", "erase --account reddit:somebody", "erased_names.json: damaged, not JSON"),
        ("keys/erased.json", "{}", "erase --account reddit:somebody", "erased.json: damaged, no list"),
        ("keys/erased.json", "[[1]]", "erase --account reddit:somebody", "erased.json: damaged, no list"),
        ("keys/erased_names.json", "{}", "erase --account reddit:somebody", "names.json: damaged, no HashedNames"),
        ("keys/erased_names.json", "[]", "erase --account reddit:somebody", "names.json: damaged, no HashedNames"),
        ("erasures/a.json", "{}", "erase --account reddit:somebody", "a.json: damaged, no Receipt in JSON"),
        ("erasures/a.journal", "zz", "erase --resume", "a.journal: damaged, or sealed under another key"),
        ("erasures/a.journal", "z" * 99, "erase --resume", "a.journal: damaged, or sealed under another key"),
        ("retention/purge.journal", "zz", "purge --dry-run", "purge.journal: damaged, not JSON; remove it"),
        ("retention/purge.journal", "{}", "purge --dry-run", "purge.journal: damaged, no _Journal"),
        ("models/item_encoder/current.json", "zz", "purge --dry-run", "current.json: not a pointer to a version"),
        ("landing/.linked.json", "[]", "real --exports {exports} dao=*.txt", ".linked.json: damaged, no dict"),
        ("landing/.linked.json", "zz", "real --exports {exports} dao=*.txt", ".linked.json: damaged, not JSON"),
        ("access/whitelist.sqlite", "zz" * 99, "access anchor", "whitelist.sqlite: damaged, no SQLite file"),
        ("scores.duckdb", "zz" * 99, "scores", "scores.duckdb: damaged; move it away"),
    ],
)
def test_a_damaged_file_of_the_platform_is_named(begun, tmp_path, capsys, place, content, command, message):
    """It was a traceback, or an error without the file's name."""
    ContributorKeys.of(Layout(tmp_path / "data"))
    (tmp_path / "export.txt").write_text("")
    damaged = tmp_path / "data" / place
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_text(content)
    assert cli.main([*begun, *command.format(exports=tmp_path).split()]) == 2
    said = capsys.readouterr().err
    assert message in said and str(damaged.parent) in said
    assert damaged.read_text() == content


TORN = {
    "short": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "garbage": lambda content: b"of somebody's " * 99,
    "another middle": lambda content: content[:40] + bytes(40) + content[80:],  # which Polars reads as other rows
}
TABLES = (CONSENT_LEDGER, MASKED_CHUNKS, MESSAGES, REJECTED_GRANTS)
READING = ["consent some", f"trace some {'5' * 64} 7", "erase --account reddit:somebody"]


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("torn", TORN)
def test_a_damaged_table_is_named(begun, tmp_path, capsys, command, torn):
    """It was a traceback, and for another middle other rows."""
    lake = Lake(tmp_path / "data")
    for table in TABLES:
        lake.commit(table, table.empty(), "some")
    table = "consent_ledger" if command.startswith("consent") else "messages"
    file = lake.path(table, "some")
    file.write_bytes(TORN[torn](file.read_bytes()))
    assert cli.main([*begun, *command.split()]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"{file}: damaged, not what was committed; materialise {table}/some again"


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize(
    ("content", "what"),
    [("of somebody's", "not JSON"), ("", "not JSON"), ("[]", "no Commit"), ("{}", "no Commit"), ("null", "no Commit")],
)
def test_a_damaged_pointer_to_a_table_is_named(begun, tmp_path, capsys, command, content, what):
    lake = Lake(tmp_path / "data")
    for table in TABLES:
        lake.commit(table, table.empty(), "some")
    table = "consent_ledger" if command.startswith("consent") else "messages"
    pointer = lake.folder(table, "some") / "current.json"
    pointer.write_text(content)
    assert cli.main([*begun, *command.split()]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"{pointer}: damaged, {what}")
    assert said.endswith(f"; remove it, and materialise {table}/some again")


@pytest.mark.parametrize("file", ["_versions/*.manifest", "data/*.lance"])
def test_a_vector_table_that_was_cut_short_is_named(begun, tmp_path, capsys, file):
    lance = LanceTables(Layout(tmp_path / "data").lancedb)
    lance.upsert("some", "chunk_embeddings", pl.DataFrame({"id": ["a"], "version": "v", "vector": [[1.0, 2.0]]}))
    folder = lance.folder("some", "chunk_embeddings")
    for path in folder.glob(file):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert cli.main([*begun, "erase", "--account", "reddit:somebody"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"{folder}: damaged, or cannot be read now; remove it")


def test_a_second_dev_on_a_data_root_is_refused_while_the_first_lives(tmp_path, monkeypatch, capsys):
    """Also as the program that it becomes; killed, it counts no longer, but what it started is no first one."""
    begun = (
        "import os, sys; from pathlib import Path; from user_embeddings_dagster.storage.durability import keep_alone;"
        'keep_alone(Path(sys.argv[1])); code = \'import subprocess; p = subprocess.Popen(["sleep", "60"]);'
        "print(p.pid, flush=True); p.wait()'; os.execv(sys.executable, [sys.executable, '-c', code])"
    )
    executed = []
    monkeypatch.setattr(cli.os, "execv", lambda *arguments: executed.append(arguments))
    (tmp_path / "dagster_home").mkdir()
    first = subprocess.Popen(
        [sys.executable, "-c", begun, tmp_path / "dagster_home"], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    child = int(first.stdout.readline())
    assert cli.main(["--data", str(tmp_path), "dev"]) == 2
    refused = f"{tmp_path}: `user-embeddings dev` is running on this data root already\n"
    assert capsys.readouterr().err == refused and not executed
    first.kill()
    first.wait()
    cli.main(["--data", str(tmp_path), "dev"])
    os.kill(child, signal.SIGKILL)
    assert len(executed) == 1
    assert cli.main(["--data", str(tmp_path), "dev"]) == 2, "this process holds it now"
