"""Assets, and what removes from the stores, exclude each other: nothing is written beside an erasure or a purge.

Each asset holds the data root together with the others while it executes; who erases or purges holds it alone
(privacy.erasure.erase). The hold is the kernel's: a killed process lets go, and a run that was queued, or that another
Dagster instance has, is held off like any other. Jobs of an asset run while it executes.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from resources.store import Store
from user_embeddings_dagster.storage.durability import make_folder, together


def removing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Marks the function of an asset that erases or purges: it holds the data root alone, and so not with others."""
    function.__dict__["removing"] = True
    return function


def excluding(function: Callable[..., Any]) -> Callable[..., Any]:
    """An asset's function that waits while somebody erases or purges, and holds them off while it executes."""
    if "removing" in function.__dict__:
        return function
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generate(*arguments: Any, **named: Any) -> Iterator[Any]:
            with _held(arguments, named):
                yield from function(*arguments, **named)

        return generate

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        with _held(arguments, named):
            return function(*arguments, **named)

    return call


@contextmanager
def _held(arguments: Sequence[Any], named: Mapping[str, Any]) -> Iterator[None]:
    given = [*arguments, *named.values()]
    root = next((value.layout.root for value in given if isinstance(value, Store)), None)
    context = next((value for value in given if isinstance(value, dg.AssetExecutionContext)), None)
    if root is None:  # an asset without stores
        yield
        return

    def waiting() -> None:
        if context is not None:
            context.log.info("waiting for an erasure or a purge to end")

    make_folder(root)
    with together(root, waiting):
        yield
