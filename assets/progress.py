"""Progress of long steps, as log lines."""

import time
from collections.abc import Callable

import dagster as dg

INTERVAL_SECONDS = 5.0


def progress_to(context: dg.AssetExecutionContext, what: str) -> Callable[[float, float], None]:
    """A callback `(done, total)` that logs at most every five seconds: share and seconds left."""
    started = last = time.monotonic()

    def report(done: float, total: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < INTERVAL_SECONDS or not total or not done:
            return
        last = now
        left = (now - started) / done * (total - done)
        context.log.info(f"{what}: {done:,.0f} of {total:,.0f} ({done / total:.0%}), {left:.0f} s left")

    return report
