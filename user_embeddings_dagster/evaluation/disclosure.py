"""What of the scores may be shown: no figure about fewer than k people (F9).

Published: what `user-embeddings scores`, `demo` and `real` print or write as CSV, and the tables and plots in Dagster's
metadata. Internal: the tables `scores` (DuckDB) and `data_funnel` (Parquet) below the data root with their `n`, which
checks and comparisons need; who reads them there reads the messages too.

A cell is hidden if it is about fewer than k people, or if it tells such a cell apart from others: the total less the
shown parts (complementary suppression; Willenborg and de Waal 2001, Elements of Statistical Disclosure Control,
chapter 6), the larger of two nested groups less the smaller, a difference between two DataDAOs less the shown one.
What changes from one report to the next is not covered: when one person leaves between two reports, their shares show
in every mean. Only noise with an account (differential privacy) would cover that.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable
from itertools import combinations

import polars as pl

ALL = "all"
NESTED = ("start=", "history=")
"""Slices of which each holds the people of the next: users with at least so many chunks."""
DISJOINT = ("half",)
"""Slices that share the people out. All others share out the messages of the same people."""

Row = dict[str, object]


def published(scores: pl.DataFrame, k: int) -> pl.DataFrame:
    """SCORES with columns `hidden` and `few` (hidden for being about fewer than k); value, interval, n and n_users of
    hidden rows are null. k of 1 hides nothing.

    A row that could not be measured (null value), or that is about texts and not people (n_users 0), stays as it is.
    """
    rows = list(scores.iter_rows(named=True))
    hidden = _hidden(rows, k)
    mask = pl.Series("hidden", [number in hidden for number in range(len(rows))], dtype=pl.Boolean)
    few = (pl.col("hidden") & (scores["n_users"] < k)).alias("few")
    secret = ("value", "ci_low", "ci_high", "n", "n_users")
    shown = scores.with_columns(mask).with_columns(few)
    return shown.with_columns(pl.when(~pl.col("hidden")).then(pl.col(name)).alias(name) for name in secret)


def visible(scores: pl.DataFrame, k: int) -> pl.DataFrame:
    """The rows that are not hidden, as they were."""
    return published(scores, k).filter(~pl.col("hidden")).drop("hidden", "few")


def published_funnel(funnel: pl.DataFrame, k: int) -> pl.DataFrame:
    """DATA_FUNNEL without the stages of a DataDAO that fewer than k people reach, and those that tell them apart.

    Of two stages of a DataDAO with fewer than k people between them, the one with fewer is left out.
    """
    keep = []
    for _, rows in funnel.group_by("datadao", maintain_order=True):
        last: int | None = None
        for row in rows.sort("n_users", descending=True, nulls_last=True).iter_rows(named=True):
            n = row["n_users"]
            if n is None or n == 0 or n == last or (n >= k and (last is None or last - n >= k)):
                keep.append((row["datadao"], row["stage_order"]))
                last = n or last
    kept = pl.DataFrame(keep, schema={name: funnel.schema[name] for name in ("datadao", "stage_order")}, orient="row")
    return funnel.join(kept, on=["datadao", "stage_order"], how="semi", maintain_order="left")


def _hidden(rows: list[Row], k: int) -> set[int]:
    """Numbers of the hidden rows: those about too few, then whatever would give one of them away, until none does."""
    people = [int(str(row["n_users"])) if row["value"] is not None else None for row in rows]
    hidden = {number for number, n in enumerate(people) if n and n < k}
    groups = [*_parts(rows, "datadao"), *_parts(rows, "family")]
    before = -1
    while before != len(hidden):
        before = len(hidden)
        for total, parts in groups:
            hidden |= _complement(total, parts, people, hidden, k)
        hidden |= _between(rows, people, hidden, k)
        hidden |= _contrasts(rows, hidden)
    return hidden


def _complement(total: int, parts: list[int], people: list[int | None], hidden: set[int], k: int) -> set[int]:
    """What else of a group is to be hidden so that the total less the shown parts is about k people or more."""
    if total in hidden or people[total] is None:
        return set()
    more, out = set[int](), [part for part in parts if part in hidden]
    shown = sorted((part for part in parts if part not in hidden and people[part]), key=lambda part: people[part] or 0)
    while out and sum(people[part] or 0 for part in out) < k:
        chosen = shown.pop(0) if shown else total
        more.add(chosen)
        if chosen == total:
            break
        out.append(chosen)
    return more


def _between(rows: list[Row], people: list[int | None], hidden: set[int], k: int) -> set[int]:
    """Of two groups that may lie in each other, with fewer than k people between them, the smaller."""
    more = set[int]()
    groups = defaultdict[Hashable, list[int]](list)
    for number, row in enumerate(rows):
        if number not in hidden and people[number] and str(row["slice"]).startswith((ALL, *NESTED, *DISJOINT)):
            groups[row["asset"], row["model"], row["metric"]].append(number)
    for members in groups.values():
        members.sort(key=lambda number: -(people[number] or 0))
        for one, other in combinations(members, 2):
            apart = 0 < (people[one] or 0) - (people[other] or 0) < k
            if apart and not {one, other} & more and _may_be_nested(rows[one], rows[other]):
                more.add(other)
    return more


def _may_be_nested(one: Row, other: Row) -> bool:
    """Two DataDAOs are about other people (or, of those in both, about other messages), as are two disjoint slices."""
    if one["datadao"] != other["datadao"] and ALL not in (one["datadao"], other["datadao"]):
        return False
    slices = str(one["slice"]), str(other["slice"])
    return not (slices[0] != slices[1] and all(slice_.startswith(DISJOINT) for slice_ in slices))


def _contrasts(rows: list[Row], hidden: set[int]) -> set[int]:
    """Differences `<task>:<a>-<b>` that name a DataDAO whose own figure is hidden."""
    names = defaultdict[Hashable, set[str]](set)
    for number in hidden:
        row = rows[number]
        names[row["asset"], row["model"], row["metric"], row["slice"]].add(str(row["datadao"]))
    found = set[int]()
    for number, row in enumerate(rows):
        task, _, pair = str(row["slice"]).partition(":")
        secret = names.get((row["asset"], row["model"], row["metric"], task), set()) if pair else set()
        if any(pair.startswith(f"{name}-") or pair.endswith(f"-{name}") for name in secret):
            found.add(number)
    return found


def _parts(rows: list[Row], axis: str) -> Iterable[tuple[int, list[int]]]:
    """Each total (`all`) with the rows that are its parts: by DataDAO, or by family of slices (`gap<…`, `half<…`)."""
    totals, parts = dict[Hashable, int](), defaultdict[tuple[Hashable, str], list[int]](list)
    for number, row in enumerate(rows):
        base, datadao, slice_ = (row["asset"], row["model"], row["metric"]), row["datadao"], str(row["slice"])
        of_datadaos = axis == "datadao"
        at = (*base, slice_ if of_datadaos else datadao)
        if (datadao if of_datadaos else slice_) == ALL:
            totals[at] = number
        else:
            family = "" if of_datadaos else re.split(r"[=<>±0-9:]", slice_, maxsplit=1)[0]
            parts[at, family].append(number)
    for (at, _), members in parts.items():
        if at in totals:
            yield totals[at], members
