"""C19: a restore that was killed is resumed by running it again, and never shows what is still to be cut."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from sealed_platform import canaries, empty_with_keys_of, looked_at
from small_platform import person

from user_embeddings_dagster.exports.opening import open_raw
from user_embeddings_dagster.privacy.backup.restore import restore
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erasure.erase import erase
from user_embeddings_dagster.privacy.sealed_format import owner_of
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.models import Models

# Restores into each root that is named, and dies without any clean-up before its N-th change of a file; with N = 0 it
# says how many there are. One process forks all of them: it has imported everything, and started no thread.
KILLED_RESTORES = """
import os, sys
from pathlib import Path
from user_embeddings_dagster.privacy.backup import restore
from user_embeddings_dagster.settings import Layout
backup, *roots = sys.argv[1:]
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "shutil.copyfile"}
for root in roots:
    number = int(root.rsplit("-", 1)[1])
    if (child := os.fork()) == 0:
        seen = 0
        def hook(event, arguments):
            global seen
            writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR) and str(arguments[0]).startswith(root)
            if event in CHANGES or writes:
                seen += 1
                if seen == number:
                    os._exit(9)
        sys.addaudithook(hook)
        restore.restore(Layout(Path(root)), Path(backup))
        print(seen, flush=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (9 if number else 0), root
"""


def killed_restores(backup: Path, *roots: Path) -> str:
    """What the processes print."""
    command = [sys.executable, "-P", "-c", KILLED_RESTORES, str(backup), *map(str, roots)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout


def state(layout: Layout) -> dict[str, bytes]:
    """Every file below the data root, but keys, locks and what a killed `write_json` leaves; of a sealed one the
    content."""
    found = {}
    with ContributorKeys.of(layout) as keys:
        for path in sorted(layout.root.rglob("*")):
            name = path.relative_to(layout.root).as_posix()
            left_out = path.name == ".lock" or re.fullmatch(r"\.\w+\.json\.\d+", path.name)
            if path.is_file() and not left_out and not name.startswith("keys/contributors"):
                found[name] = open_raw(path, keys).read()
    return found


def test_killed_at_any_moment_a_restore_is_resumed_to_the_same_end(layout, backup):
    """C19, F4: with the erased person's key still there, and their names told by their own exports alone."""
    users, keys = person(layout), empty_with_keys_of(layout, "keys")
    wanted = canaries(layout, users)
    erase(layout, users)
    shutil.copyfile(layout.erased, keys.erased)

    def fresh(number: int) -> Layout:
        return empty_with_keys_of(keys, f"killed-{number}")

    undisturbed = fresh(0)
    changes = int(killed_restores(backup, undisturbed.root))
    assert not looked_at(undisturbed, undisturbed.root, wanted).hits and changes > 100
    expected = state(undisturbed)
    assert not any(name.startswith("staging/") for name in expected)
    killed = [fresh(number) for number in range(changes // 20, changes + 1, changes // 10)]
    killed_restores(backup, *(one.root for one in killed))
    for one in killed:
        assert not looked_at(one, one.landing, wanted).hits, f"{one.root.name}: uncut in the landing folder"
        for version in Models(one.models).versions():
            promoted = version.root.parent / "current.json"
            assert not promoted.exists() or version.contributors == frozenset() or version.tainted
        restore(one, backup)
        again = state(one)
        assert [name for name in expected | again if expected.get(name) != again.get(name)] == [], one.root.name


def test_what_a_killed_restore_staged_goes_with_an_erasure(layout, backup):
    """It holds what was not yet cut."""
    staged = layout.root / "staging" / "restoring" / "telegram"
    staged.mkdir(parents=True)
    with ContributorKeys.of(layout) as keys:
        exports = [path for path in sorted((backup / "files").iterdir()) if owner_of(path, keys) == "datadao:telegram"]
    shutil.copyfile(exports[0], staged / "chat.json.sealed")
    erase(layout, person(layout))
    assert not staged.exists()
