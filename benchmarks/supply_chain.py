"""F24: what is installed is what is locked, nothing runs at start-up that nobody knows, every model is pinned.

    python -m benchmarks.supply_chain
    python -m benchmarks.supply_chain --report REPORT      # pip's installation report to a lock with hashes

Known vulnerabilities are not looked up here, since that asks a server: `make audit` does on a machine with a network.
"""

import argparse
import ast
import hashlib
import json
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = "user-embeddings-dagster"
TOOLS = frozenset({PROJECT, "pip", "wheel"})
# Files that Python runs at start-up, by SHA-256 of their content. A line that only names a folder runs nothing.
KNOWN_PTH = {
    "dda83a855986efa5cd87f0248b0199c0086eb0e8e7fece7d6741959c5ce39536",  # coloredlogs.pth, a dependency of dagster
    "2638ce9e2500e572a5e0de7faed6661eb569d1b696fcba07b0dd223da5f5d224",  # distutils-precedence.pth of setuptools
}
STARTUP = ("sitecustomize.py", "usercustomize.py")
CODE = ("user_embeddings_dagster", "assets", "resources", "training", "benchmarks")
# Calls that take a model from elsewhere by a name: there is no reason for one.
FETCHING = frozenset(
    {"hf_hub_download", "snapshot_download", "load_dataset", "load_state_dict_from_url", "urlretrieve"}
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def locked(constraints: Path) -> dict[str, str]:
    """Version by canonical name. Raises ValueError on a line that does not pin one version."""
    found = {}
    for line in constraints.read_text().splitlines():
        if not (text := line.split("#")[0].strip()):
            continue
        name, equal, version = text.partition("==")
        if not equal or not version or re.search(r"[*,;<>~! ]", version):
            raise ValueError(f"{constraints.name}: not one version: {text}")
        found[canonicalize_name(name)] = version
    return found


def _same(version: str, locked: str) -> bool:
    """Builds of one version (2.13.0+cpu) are that version."""
    return Version(version).public == Version(locked).public


def unlocked(installed: Mapping[str, str], lock: Mapping[str, str]) -> list[str]:
    """Packages that are not in the lock, or in another version."""
    found = []
    for name, version in sorted(installed.items()):
        if name in TOOLS:
            continue
        if name not in lock:
            found.append(f"{name} {version}: installed, not locked")
        elif not _same(version, lock[name]):
            found.append(f"{name} {version}: locked at {lock[name]}")
    return found


def installed(folder: Path | None = None) -> dict[str, Distribution]:
    """Packages in the folder, or on the path of this interpreter, by canonical name."""
    found = distributions(path=[str(folder)]) if folder else distributions()
    return {canonicalize_name(one.metadata["Name"]): one for one in found}


def required(packages: Mapping[str, Distribution], extras: Iterable[str]) -> dict[str, str]:
    """Versions of the packages that the project needs with the extras, directly or not, as far as installed."""
    found: dict[str, str] = {}
    open_ends = [(PROJECT, frozenset(extras))]
    seen = set(open_ends)
    while open_ends:
        name, wanted = open_ends.pop()
        if name not in packages:
            continue
        found[name] = packages[name].version
        for line in packages[name].requires or ():
            need = Requirement(line)
            if need.marker and not any(need.marker.evaluate({"extra": extra}) for extra in {"", *wanted}):
                continue
            end = (str(canonicalize_name(need.name)), frozenset(need.extras))
            if end not in seen:
                seen.add(end)
                open_ends.append(end)
    return found


def startup_files(folder: Path) -> list[str]:
    """Files of a site-packages folder that Python runs at start-up and that nobody here knows."""
    found = [f"{name}: runs at start-up" for name in STARTUP if (folder / name).exists()]
    for path in sorted(folder.glob("*.pth")):
        content = path.read_bytes()
        runs = any(re.match(rb"import[ \t]", line) for line in content.splitlines())
        if runs and hashlib.sha256(content).hexdigest() not in KNOWN_PTH:
            found.append(f"{path.name}: runs code at start-up")
        elif not runs and not all(
            Path(line).resolve() == ROOT for line in content.decode().split("\n") if line.strip()
        ):
            found.append(f"{path.name}: leads to a folder that is not the project's")
    return found


def from_elsewhere(packages: Mapping[str, Distribution]) -> list[str]:
    """Packages that came from an address or a folder instead of the registry (PEP 610)."""
    return [
        f"{name}: from {json.loads(text)['url'].split(':')[0]}, not from the registry"
        for name, one in sorted(packages.items())
        if name != PROJECT and (text := one.read_text("direct_url.json"))
    ]


def unpinned_models(source: str, name: str) -> Iterator[str]:
    """Places in Python source at which a model could be another one tomorrow, or bring code of its own."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        pairs: list[tuple[object, ast.expr]] = []
        place = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in FETCHING:
                yield f"{place}: {called}"
            pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
            said = {key for key, _ in pairs}
            if called == "from_pretrained" and None not in said and "local_files_only" not in said:
                yield f"{place}: from_pretrained without local_files_only"
        elif isinstance(node, ast.Dict):
            pairs = [(getattr(key, "value", None), value) for key, value in zip(node.keys, node.values, strict=True)]
        for key, value in pairs:
            constant = value.value if isinstance(value, ast.Constant) else value
            if key == "trust_remote_code" and constant is not False:
                yield f"{place}: trust_remote_code"
            if key == "local_files_only" and constant is not True:
                yield f"{place}: not local_files_only"
            if key == "revision" and isinstance(constant, str) and not _COMMIT.fullmatch(constant):
                yield f"{place}: a revision that is no commit"


def code_findings(root: Path = ROOT) -> list[str]:
    """`unpinned_models` of all code of the project."""
    return [
        finding
        for folder in CODE
        for path in sorted((root / folder).rglob("*.py"))
        for finding in unpinned_models(path.read_text(), path.relative_to(root).as_posix())
    ]


def with_hashes(report: Path, lock: Mapping[str, str]) -> list[str]:
    """Lines for `pip install --require-hashes`, of what `pip install --dry-run --report` would take.

    Raises ValueError for a package in another version than is locked, or of which the registry gives no SHA-256.
    """
    lines = []
    for one in json.loads(report.read_text())["install"]:
        name, version = canonicalize_name(one["metadata"]["name"]), one["metadata"]["version"]
        if name == PROJECT:
            continue
        digest = one["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if not digest or name not in lock or not _same(version, lock[name]):
            raise ValueError(f"{name} {version}: locked at {lock.get(name)}, SHA-256 {digest}")
        lines.append(f"{name}=={version} --hash=sha256:{digest}")
    return sorted(lines)


def main() -> int:
    """Print each check and what it found; returns 1 if one found something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, help="pip's report, of which to print the lock")
    options = parser.parse_args()
    if options.report:
        print(*with_hashes(options.report, locked(ROOT / "constraints.txt")), sep="\n")
        return 0
    packages, lock = installed(), locked(ROOT / "constraints.txt")
    versions = {name: one.version for name, one in packages.items()}
    checks = {
        f"{len(packages)} packages installed, {len(lock)} locked": unlocked(versions, lock),
        "files that run at start-up": startup_files(Path(sysconfig.get_path("purelib"))),
        "packages from elsewhere than the registry": from_elsewhere(packages),
        "models and code that come with them": code_findings(),
    }
    for check, findings in checks.items():
        print(f"{'FAILED' if findings else 'ok':6} {check}")
        for finding in findings:
            print(f"         {finding}")
    print("not run: hashes of wheels (make lock) and known vulnerabilities (make audit), both ask the registry")
    return 1 if any(checks.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
