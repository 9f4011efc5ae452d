"""C17, C18: the command line: challenge, proof, token, the embedding, grants, the log and its anchors."""

import json
import subprocess
import sys

import pytest

from benchmarks.access_world import Signer, World
from user_embeddings_dagster import cli


@pytest.fixture
def command(tmp_path, capsys):
    """`user-embeddings access` on a small platform: exit status, standard output."""
    world = World(tmp_path / "data", 2)
    world.access.whitelist.close()

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        status = cli.main(["--data", str(tmp_path / "data"), "access", *arguments])
        return status, capsys.readouterr().out

    def signed(step: str, by: Signer, *challenge: str) -> tuple[int, str]:
        status, text = run("challenge", *challenge)
        assert status == 0
        (tmp_path / "challenge").write_text(text)
        return run(step, str(tmp_path / "challenge"), by.key, by.sign(text.rstrip("\n")).hex())

    return world, run, signed, tmp_path


def test_from_a_challenge_to_the_embedding_and_its_removal(command):
    world, run, signed, folder = command
    user = world.users[1]  # whose owner has a wallet
    status, token = signed("prove", world.owners[user], user, "alpha", "read", "update", "remove")
    (folder / "token").write_text(token)
    held = ("--token", str(folder / "token"))
    assert status == 0
    status, row = run("read", user, "alpha", *held)
    assert status == 0 and len(json.loads(row)["vector"]) == 16 and json.loads(row)["n_chunks"] == 2
    assert run("hide", user, "alpha", *held) == (0, "")
    assert run("remove", user, "alpha", *held) == (0, "removed\n")
    assert run("read", user, "alpha", *held) == (1, "")
    assert run("read", world.users[0], "alpha", *held) == (1, "")
    assert run("revoke-token", *held) == (0, "")
    assert run("serve", user, "alpha", *held) == (1, "")
    assert run("verify-log")[0] == 0


def test_a_grant_and_its_revocation(command):
    world, run, signed, folder = command
    user, app = world.users[0], Signer()
    owner = world.owners[user]
    ask = (app, user, "beta", "read")
    assert signed("prove", *ask)[0] == 1
    terms = ("--key", app.key, "--allow", "read", "--expires", str(2**33))
    assert signed("grant", owner, user, "beta", "grant", *terms) == (0, "")
    status, token = signed("prove", *ask)
    (folder / "token").write_text(token)
    assert status == 0 and run("read", user, "beta", "--token", str(folder / "token"))[0] == 0
    assert signed("revoke", owner, user, "beta", "revoke", "--key", app.key) == (0, "")
    assert run("read", user, "beta", "--token", str(folder / "token"))[0] == 1
    assert run("enrol", user, app.key)[0] == 1 and run("enrol", user, app.key, "--replace")[0] == 0
    assert signed("prove", app, user, "beta", "read")[0] == 0


def test_the_log_is_verified_with_its_anchors(command):
    world, run, _, folder = command
    status, anchor = run("anchor")
    (folder / "anchor.json").write_text(anchor)
    assert status == 0 and {*json.loads(anchor)["commitments"]} == {"alpha", "beta"}
    status, told = run("verify-log", "--anchors", str(folder / "anchor.json"))
    assert status == 0 and told.startswith("intact: ")
    path = world.layout.access_log
    path.write_bytes(path.read_bytes().replace(b"done", b"none", 1))
    assert run("verify-log")[0] == 1


@pytest.mark.parametrize(
    "wrong",
    [("challenge", "somebody", "alpha", "read"), ("challenge", "0" * 32, "../x", "read"),
     ("challenge", "0" * 32, "alpha", "everything"), ("enrol", "0" * 32, "a key"),
     ("prove", "/nowhere", "ed25519:00", "00"), ("verify-log", "--anchors", "/dev/null")],
)  # fmt: skip
def test_what_is_asked_wrongly_is_said_to_be(command, wrong):
    assert command[1](*wrong)[0] == 2


def test_a_code_location_does_not_load_what_access_needs():
    """Biscuit and the wallet libraries are loaded by the command that uses them."""
    code = "import sys, user_embeddings_dagster.definitions; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "user_embeddings_dagster.privacy.access.log" in loaded
    assert not {"biscuit_auth", "eth_keys", "eth_hash"} & set(loaded)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("grant",), "grant takes --key, --allow and --expires"),
        (("grant", "--key", "ed25519:00", "--allow", "read", "--expires", "3600"), "--expires is in the past"),
        (("revoke",), "revoke takes --key"),
        (("read", "--key", "ed25519:00"), "other actions none of them"),
    ],
)
def test_what_could_only_be_refused_is_not_given_to_be_signed(tmp_path, capsys, asked, said):
    (tmp_path / "data" / "landing").mkdir(parents=True)
    assert cli.main(["--data", str(tmp_path / "data"), "access", "challenge", "ab" * 16, "alpha", *asked]) == 2
    told = capsys.readouterr()
    assert said in told.err and not told.out


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("challenge", "reddit:somebody", "alpha", "read"), "a user id is 32 hexadecimal digits"),
        (("challenge", "ab" * 16, "../x", "read"), "a DataDAO's name is of a-z"),
        (("verify-log", "--anchors", "NOPE"), "NOPE: No such file or directory; expected a file with an anchor"),
        (("verify-log", "--anchors", "HERE"), "HERE: expected an anchor"),
        (
            ("read", "ab" * 16, "alpha", "--token", "NOPE"),
            "NOPE: No such file or directory; expected a file with a token",
        ),
        (("revoke-token", "--token", "."), "Is a directory; expected a file with a token"),
        (("prove", "NOPE", "ed25519:00", "00"), "NOPE: No such file or directory; expected a file with the text of a"),
        (("grant", "BYTES", "ed25519:00", "00"), "BYTES: no text; expected the text of a challenge"),
    ],
)
def test_what_is_no_file_of_the_wanted_kind_is_named(tmp_path, capsys, asked, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "landing").mkdir(parents=True)
    (tmp_path / "HERE").write_text("{}")
    (tmp_path / "BYTES").write_bytes(b"\xff\xfe")
    assert cli.main(["--data", str(tmp_path / "data"), "access", *asked]) == 2
    told = capsys.readouterr().err
    assert said in told and "Errno" not in told


def test_nobody_is_enrolled_by_a_mistyped_user_id(tmp_path, capsys):
    (tmp_path / "data" / "landing").mkdir(parents=True)
    key = f"ed25519:{'ab' * 32}"
    assert cli.main(["--data", str(tmp_path / "data"), "access", "enrol", "reddit:somebody", key]) == 2
    assert "a user id is 32 hexadecimal digits" in capsys.readouterr().err
