"""F22: nothing that the platform runs looks for a server: connects and name look-ups of whole processes, counted.

    python -m benchmarks.phone_home [--seconds 45] [--only NAME]

Each part runs under strace in a network namespace of its own in which only loopback is up: a call is counted where it
is made, and could not get out if it were missed. Linux with strace and unshare, as root or with user namespaces.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CALLS = "connect,sendto,sendmsg,sendmmsg"
# An address as strace prints it, of IPv4 and IPv6.
_ADDRESS = re.compile(
    r"sa_family=AF_INET6?, sin6?_port=htons\((\d+)\).*?(?:inet_addr\(\"([^\"]+)\"\)|inet_pton\(AF_INET6, \"([^\"]+)\")"
)
_CALL = re.compile(r"\b(connect|sendto|sendmsg|sendmmsg)\(")
# Local services that resolve names for others. One that is not there is told nothing: the process asks DNS itself.
_RESOLVER = re.compile(r"sun_path=\"[^\"]*/(nscd|systemd/resolve|lwresd|avahi-daemon)/")
_PROCESS = re.compile(r"\d+")
LOOPBACK = re.compile(r"127\.|::1$|::ffff:127\.")
DNS = 53
PORT = 38_417
QUERY = '{"query": "{ version assetNodes { assetKey { path } } }"}'


@dataclass(frozen=True)
class Seen:
    """Destinations that are not this machine, with how often each was asked for; the part's exit code, its output's
    end, and how many calls were looked at in all."""

    outside: Mapping[str, int]
    calls: int
    code: int
    output: str


def why_not() -> str:
    """Why the check cannot run here; empty if it can."""
    if absent := [name for name in ("strace", "unshare", "ip") if not shutil.which(name)]:
        return f"not run: no {', '.join(absent)}"
    tried = subprocess.run([*isolated(), "strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "not run: no network namespace may be made here, or nothing be traced"


def isolated() -> list[str]:
    """A command's beginning that runs the rest where only loopback is."""
    namespace = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    return [*namespace, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def destinations(trace: str) -> Iterator[str]:
    """Where the calls of a trace went that is not this machine; name look-ups are told as such, loopback or not."""
    asked: dict[str, str] = {}  # local resolvers by the process whose call has not returned yet
    for line in trace.splitlines():
        process = _PROCESS.match(line)
        if process and " resumed>" in line and (resolver := asked.pop(process[0], "")) and " = -1 " not in line:
            yield f"name look-up by {resolver}"
        if not _CALL.search(line):
            continue
        if resolver := _RESOLVER.search(line):
            if "<unfinished" in line and process:
                asked[process[0]] = resolver[1]
            elif " = -1 " not in line:
                yield f"name look-up by {resolver[1]}"
        for port, four, six in _ADDRESS.findall(line):
            address = four or six
            if int(port) == DNS:
                yield f"name look-up at {address}"
            elif not LOOPBACK.match(address):
                yield f"{address} port {port}"


def watched(command: list[str], environment: Mapping[str, str], seconds: float = 900) -> Seen:
    """Run the command to its end, or end it after `seconds`, and tell what it and its children called."""
    with tempfile.TemporaryDirectory() as folder:
        trace, output = Path(folder) / "trace", Path(folder) / "output"
        traced = [
            *isolated(),
            "strace",
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-s",
            "64",
            "-e",
            f"trace={CALLS}",
            "-o",
            str(trace),
        ]
        with output.open("wb") as out:
            process = subprocess.Popen(
                [*traced, *command], stdout=out, stderr=out, env={**os.environ, **environment}, start_new_session=True
            )
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    code = process.wait(60)
                except subprocess.TimeoutExpired:  # its trace up to here still counts
                    os.killpg(process.pid, signal.SIGKILL)
                    code = process.wait()
        text = trace.read_text(errors="replace") if trace.exists() else ""
        calls = sum(bool(_CALL.search(line)) for line in text.splitlines())
        end = output.read_text(errors="replace")[-3000:]
        return Seen(Counter(destinations(text)), calls, code, end)


# dagster-webserver, asked for its version and assets once it answers, for that many seconds.
WEBSERVER = f"""
import subprocess, sys, time, urllib.request
address = ["-h", "127.0.0.1", "-p", "{PORT}"]
module = ["-m", "dagster_webserver", "-m", "user_embeddings_dagster.definitions"]
server = subprocess.Popen([sys.executable, "-P", *module, *address])
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
end, found = time.monotonic() + float(sys.argv[1]), b""
try:
    while time.monotonic() < end or not found:
        time.sleep(1)
        assert server.poll() is None, "the webserver ended"
        assert time.monotonic() < end + 300, "the webserver does not answer"
        kind = {{"Content-Type": "application/json"}}
        try:
            request = urllib.request.Request("http://127.0.0.1:{PORT}/graphql", {QUERY.encode()!r}, kind)
            found = opener.open(request, timeout=60).read()
        except OSError:
            continue
    assert b"user_embeddings" in found, found[:200]
finally:
    server.terminate()
    server.wait(30)
"""


def parts(folder: Path, seconds: int) -> dict[str, tuple[list[str], dict[str, str]]]:
    """The commands that are watched, with their environment, by name."""
    home = folder / "data" / "dagster_home"
    home.mkdir(parents=True)
    shutil.copy(ROOT / "user_embeddings_dagster" / "dagster.yaml", home)
    data = {"USER_EMBEDDINGS_DATA": str(folder / "data"), "DAGSTER_HOME": str(home)}
    python = [sys.executable, "-P"]
    demo = [*python, "-m", "user_embeddings_dagster.cli", "--data", str(folder / "demo")]
    # These two trace processes themselves, which a traced process cannot.
    own = [f"--ignore=tests/reliability/{name}.py" for name in ("test_phone_home", "test_crash_syscalls")]
    tests = [*python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile", *own, "tests"]
    return {
        "imports": ([*python, "-c", EVERYTHING], {}),
        "webserver": ([*python, "-c", WEBSERVER, str(seconds)], data),
        "demo of 24 contributors": ([*demo, "demo", "--contributors", "24", "--dimensions", "64"], {}),
        "tests": (tests, {"PYTHONPATH": str(ROOT)}),
    }


# Every module of the project, with what each imports inside of its functions.
EVERYTHING = """
import pkgutil, importlib, user_embeddings_dagster.definitions
import user_embeddings_dagster, assets, resources, training
for package in (user_embeddings_dagster, assets, resources, training):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
import dspy, lancedb, transformers, torch, great_expectations, peft, dagster_webserver
"""
# Positive controls: what must be seen if the check sees anything.
CONTROLS = {
    "a connect": "import socket; s = socket.socket(); s.settimeout(1); s.connect_ex(('192.0.2.1', 443))",
    "an address of IPv6": "import socket; socket.socket(socket.AF_INET6).connect_ex(('2001:db8::1', 443))",
    "a datagram": "import socket\ntry: socket.socket(2, 2).sendto(b'x', ('192.0.2.1', 8125))\nexcept OSError: pass",
    "a name look-up": "import socket\ntry: socket.getaddrinfo('telemetry.example.com', 443)\nexcept OSError: pass",
}


def main() -> int:
    """Print the table; returns 1 if something looked for a server, or a control was not seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=45, help="how long the webserver is watched")
    parser.add_argument("--only", default="", help="parts whose name contains this")
    parser.add_argument("--limit", type=float, default=2400, help="seconds after which a part is ended and has failed")
    options = parser.parse_args()
    if reason := why_not():
        print(reason)
        return 1
    failed = 0
    for name, script in CONTROLS.items():
        seen = watched([sys.executable, "-c", script], {})
        failed += not seen.outside
        print(f"{'ok' if seen.outside else 'FAILED':6} control: {name:22} {dict(seen.outside)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, (command, environment) in parts(Path(folder), options.seconds).items():
            if options.only not in name:
                continue
            start = time.monotonic()
            seen = watched(command, environment, options.limit)
            bad = bool(seen.outside) or seen.code != 0
            failed += bad
            figures = (
                f"{seen.calls:5} calls, {sum(seen.outside.values())} off this machine, {time.monotonic() - start:.0f} s"
            )
            print(f"{'FAILED' if bad else 'ok':6} {name:31} {figures}  {dict(seen.outside) or ''}", flush=True)
            if seen.code != 0:
                print(f"       exit code {seen.code}: …{seen.output}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
