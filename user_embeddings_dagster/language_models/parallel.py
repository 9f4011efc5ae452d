"""Work on many items at once by asyncio, seen from outside as a plain iterator of bounded memory."""

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Opened = Callable[[], AbstractAsyncContextManager[Callable[[Item], Awaitable[Result]]]]


def results(items: Iterable[Item], opened: Opened[Item, Result], ahead: int) -> Iterator[Result]:
    """What `work(item)` returns for each item, as they come; `opened()` gives `work` for as long as it is needed.

    Items are read in the caller's thread, at most `ahead` more than results were taken; results that are there go
    before reading on. What `work` raises is raised here. What `items` raises is raised after the results of what was
    read before. The work runs in a thread of its own; closing the iterator cancels it.
    """
    source = iter(items)
    crew = _Crew(opened)
    unread, pending = True, 0
    problem: Exception | None = None
    try:
        while unread or pending:
            if pending == ahead or not unread or not crew.finished.empty():
                result = crew.finished.get().result()
                pending -= 1
                yield result
                continue
            try:
                item = next(source)
            except StopIteration:
                unread = False
            except Exception as error:  # noqa: BLE001 - raised below, after what is already under way
                unread, problem = False, error
            else:
                crew.begin(item)
                pending += 1
    finally:
        crew.dismiss()
    if problem is not None:
        raise problem


class _Crew(Generic[Item, Result]):
    """An event loop in a thread of its own; `finished` holds the futures of work done."""

    def __init__(self, opened: Opened[Item, Result]) -> None:
        self.finished: queue.SimpleQueue[Future[Result]] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._thread = threading.Thread(target=self._run, name="language model", daemon=True)
        self._thread.start()
        try:
            self._work = asyncio.run_coroutine_threadsafe(
                self._stack.enter_async_context(opened()), self._loop
            ).result()
        except BaseException:
            self.dismiss()
            raise

    def begin(self, item: Item) -> None:
        asyncio.run_coroutine_threadsafe(self._one(item), self._loop).add_done_callback(self.finished.put)

    async def _one(self, item: Item) -> Result:
        return await self._work(item)

    def dismiss(self) -> None:
        """Cancel what is under way and end the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        if threading.current_thread() is not self._thread:  # where the collector may close a forgotten iterator
            self._thread.join()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._stack.aclose()
        self._loop.stop()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()
