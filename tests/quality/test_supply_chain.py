"""F24: what is installed is locked, start-up files are known, models are pinned; each check finds what is planted."""

import json
import sysconfig
from pathlib import Path

import pytest

from benchmarks.supply_chain import (
    ROOT,
    code_findings,
    from_elsewhere,
    installed,
    locked,
    required,
    startup_files,
    unlocked,
    unpinned_models,
    with_hashes,
)
from user_embeddings_dagster.storage.manifest import CorruptArtifact, pinned

LOCK = ROOT / "constraints.txt"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def planted(folder: Path, name: str, version: str) -> None:
    """A package in a site-packages folder."""
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_all_that_the_project_needs_is_installed_as_it_is_locked():
    """The environment may hold other tools beside: the command says which (`python -m benchmarks.supply_chain`)."""
    needed = required(installed(), ("web", "aws", "dp", "lmdb", "redis", "dev"))
    assert len(needed) > 100
    assert unlocked(needed, locked(LOCK)) == []


def test_nothing_unknown_runs_at_start_up_and_nothing_came_from_elsewhere():
    assert startup_files(Path(sysconfig.get_path("purelib"))) == []
    assert from_elsewhere(installed()) == []


def test_every_model_is_pinned_and_brings_no_code():
    assert code_findings() == []


def test_packages_that_are_not_locked_or_not_as_locked_are_found(tmp_path):
    planted(tmp_path, "polars", "0.0.1")
    planted(tmp_path, "evil_helper", "1.0")
    found = unlocked({name: one.version for name, one in installed(tmp_path).items()}, locked(LOCK))
    assert [line.split()[0] for line in found] == ["evil-helper", "polars"]
    loose = tmp_path / "constraints.txt"
    for line in ("polars>=1", "polars", "polars==1.*"):
        loose.write_text(line)
        with pytest.raises(ValueError, match="not one version"):
            locked(loose)


def test_another_build_of_the_locked_version_is_that_version():
    assert unlocked({"torch": "2.13.0+cpu"}, {"torch": "2.13.0"}) == []
    assert unlocked({"torch": "2.13.1+cpu"}, {"torch": "2.13.0"}) != []


def test_planted_start_up_files_are_found(tmp_path):
    (tmp_path / "a.pth").write_text("import os; os.system('true')\n")
    (tmp_path / "b.pth").write_text("import\tos\n")
    (tmp_path / "c.pth").write_text(f"{tmp_path}\n")
    (tmp_path / "d.pth").write_text(f"{ROOT}\n")
    (tmp_path / "sitecustomize.py").write_text("")
    assert [line.split(":")[0] for line in startup_files(tmp_path)] == ["sitecustomize.py", "a.pth", "b.pth", "c.pth"]


def test_a_package_from_an_address_is_found(tmp_path):
    planted(tmp_path, "helper", "1.0")
    (tmp_path / "helper-1.0.dist-info" / "direct_url.json").write_text('{"url": "git+ssh://host/helper"}')
    assert from_elsewhere(installed(tmp_path)) == ["helper: from git+ssh, not from the registry"]


@pytest.mark.parametrize(
    "source",
    (
        "AutoModel.from_pretrained(name)",
        "AutoModel.from_pretrained(name, local_files_only=False)",
        "AutoModel.from_pretrained(name, local_files_only=True, trust_remote_code=True)",
        "options = {'trust_remote_code': given}",
        "LLM(model=name, revision='main')",
        "hub.snapshot_download(name)",
    ),
)
def test_a_model_that_is_not_pinned_is_found(source):
    assert list(unpinned_models(source, "planted.py")) != []


def test_a_language_model_is_a_folder_or_a_commit(tmp_path):
    assert pinned(str(tmp_path)) == (str(tmp_path), None)
    assert pinned(f"Qwen/Qwen3-32B@{COMMIT}") == ("Qwen/Qwen3-32B", COMMIT)
    for name in ("Qwen/Qwen3-32B", "Qwen/Qwen3-32B@main", f"Qwen/Qwen3-32B@{COMMIT[:12]}", str(tmp_path / "absent")):
        with pytest.raises(ValueError, match="name@commit"):
            pinned(name)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CorruptArtifact):
        pinned(str(tmp_path))


def test_a_lock_has_the_hash_of_every_wheel_or_is_not_made(tmp_path):
    def line(version: str, hashes: dict[str, str]) -> str:
        install = {
            "metadata": {"name": "Zstandard", "version": version},
            "download_info": {"archive_info": {"hashes": hashes}},
        }
        project = {
            "metadata": {"name": "user-embeddings-dagster", "version": "0.1.0"},
            "download_info": {"dir_info": {}},
        }
        (tmp_path / "report.json").write_text(json.dumps({"install": [project, install]}))
        return "\n".join(with_hashes(tmp_path / "report.json", {"zstandard": "0.25.0"}))

    assert line("0.25.0", {"sha256": "ab"}) == "zstandard==0.25.0 --hash=sha256:ab"
    assert line("0.25.0+cpu", {"sha256": "ab"}) == "zstandard==0.25.0+cpu --hash=sha256:ab"
    for version, hashes in (("0.25.1", {"sha256": "ab"}), ("0.25.0", {})):
        with pytest.raises(ValueError, match="zstandard"):
            line(version, hashes)
