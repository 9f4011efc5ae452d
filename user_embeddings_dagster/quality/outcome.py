"""What a check says: passed or not, how serious, and numbers; never a value of the checked rows."""

import math
from dataclasses import dataclass, field

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class CheckOutcome:
    """One check. `severity` is 'error' or 'warning'; `metrics` are finite numbers, `places` say which rows,
    as numbers of lines."""

    name: str
    passed: bool
    severity: str = ERROR
    metrics: dict[str, float] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.severity not in (ERROR, WARNING):
            raise ValueError(f"check {self.name}: severity {self.severity!r}")
        wrong = [name for name, value in self.metrics.items() if not math.isfinite(value)]
        if wrong:
            raise ValueError(f"check {self.name}: metrics that are not finite: {wrong}")
