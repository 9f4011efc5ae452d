"""What concurrent writers did, and whether one order of it explains what they saw (linearizability of a register)."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Write:
    """An acknowledged batch: who wrote which ids when, seconds of the machine's monotonic clock."""

    name: str
    ids: tuple[str, ...]
    began: float
    ended: float


@dataclass(frozen=True)
class Read:
    """What a writer saw: the name of the batch by id, ids that were there twice."""

    seen: dict[str, str]
    twice: int
    began: float
    ended: float


@dataclass
class History:
    """Everything that the writers did; `errors` of those that ended otherwise."""

    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """Ids that a read had twice; values that are lost or were overwritten by an older one; writers that failed."""

    writes: int
    twice: int
    lost: int
    errors: list[str]

    @property
    def good(self) -> bool:
        """Nothing went wrong."""
        return not (self.twice or self.lost or self.errors)


def check(history: History) -> Verdict:
    """Each id as an atomic register: a read sees a batch that nothing acknowledged before the read has replaced."""
    by_id: dict[str, list[Write]] = {}
    for write in history.writes:
        for name in write.ids:
            by_id.setdefault(name, []).append(write)
    lost = 0
    for read in history.reads:
        for name, writes in by_id.items():
            before = [write for write in writes if write.ended < read.began]
            if not before:
                continue
            value = next((write for write in writes if write.name == read.seen.get(name)), None)
            lost += value is None or any(write.began > value.ended for write in before) or value.began > read.ended
    return Verdict(len(history.writes), sum(read.twice for read in history.reads), lost, history.errors)
