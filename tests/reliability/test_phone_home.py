"""F22: loading the definitions asks no server; the pipeline, web UI and tests: `benchmarks.phone_home`."""

import sys

import pytest

from benchmarks.phone_home import CONTROLS, destinations, watched, why_not

REASON = why_not()
traced = pytest.mark.skipif(bool(REASON), reason=REASON or "it runs")


@traced
def test_loading_the_definitions_asks_no_server():
    script = "import user_embeddings_dagster.definitions, dspy, lancedb"
    seen = watched([sys.executable, "-P", "-c", script], {})
    assert (dict(seen.outside), seen.code) == ({}, 0), seen.output


@traced
@pytest.mark.parametrize("name", CONTROLS)
def test_a_process_that_looks_for_a_server_is_seen(name):
    """Positive control."""
    assert sum(watched([sys.executable, "-c", CONTROLS[name]], {}).outside.values()) > 0


def test_destinations_are_told_from_this_machine():
    trace = """
1 connect(3, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT (No such file or directory)
1 connect(3, {sa_family=AF_INET, sin_port=htons(8000), sin_addr=inet_addr("127.0.0.1")}, 16) = 0
1 connect(3, {sa_family=AF_INET6, sin6_port=htons(8000), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=0}, 28) = 0
2 connect(3, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110 <unfinished ...>
2 <... connect resumed>) = -1 ENOENT (No such file or directory)
"""  # noqa: E501
    assert list(destinations(trace)) == []
    trace = """
1 connect(3, {sa_family=AF_UNIX, sun_path="/run/systemd/resolve/io.systemd.Resolve"}, 42) = 0
2 connect(3, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110 <unfinished ...>
2 <... connect resumed>) = 0
1 connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0
1 connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("18.4.5.6")}, 16 <unfinished ...>
1 sendmmsg(3, [{msg_hdr={msg_name={sa_family=AF_INET6, sin6_port=htons(4317), inet_pton(AF_INET6, "2001:db8::1", &sin6_addr)}}}], 1, 0) = 1
"""  # noqa: E501
    assert list(destinations(trace)) == [
        "name look-up by systemd/resolve", "name look-up by nscd", "name look-up at 127.0.0.53", "18.4.5.6 port 443",
        "2001:db8::1 port 4317",
    ]  # fmt: skip
