"""No row passes a gate without consent to what is behind it (C14, F6)."""

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.consent import AT, CASES, PURPOSES, GateOff, expected, ledger_of, platform, reached

cases = st.lists(st.sampled_from(sorted(CASES)), min_size=1, max_size=12)


@given(cases=cases, purpose=st.sampled_from(PURPOSES))
@settings(max_examples=60, deadline=None)
def test_no_row_passes_a_gate_without_a_grant_that_holds_for_its_purpose(cases, purpose):
    """F6: absent, expired, revoked, not yet begun, of another purpose, DataDAO or person → 0 rows; valid → all."""
    users = {f"{number:032x}": case for number, case in enumerate(cases)}
    ledger = ledger_of(users, purpose)
    for gate, rows in reached(platform(users), ledger, AT).items():
        assert rows == expected(users, purpose, gate), gate


def test_control_without_the_gate_the_rows_pass():
    """F6: the check can fail: with the gate removed, every user's rows are there."""
    users = {f"{number:032x}": "revoked" for number in range(8)}
    for gate, rows in reached(platform(users), GateOff(ledger_of(users, "train")).opened(users), AT).items():
        assert rows == expected(users, "train", gate, gated=False), gate
        assert not reached(platform(users), ledger_of(users, "train"), AT)[gate]
