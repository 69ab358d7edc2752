"""Reading, work and writing of consecutive items at the same time, in one process.

While one item is worked on, the next one is read and the one before is written, each in its own thread. That pays where work
leaves the processor alone, as a network on a GPU does; decoding and compression of images leave Python alone too. No more than
three items are in memory, and each step sees the items in order, so what is written does not depend on the overlap.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Content = TypeVar("Content")
Done = TypeVar("Done")
R = TypeVar("R")


def overlapped(
    items: Sequence[T], read: Callable[[T], Content], work: Callable[[T, Content], Done], write: Callable[[T, Done], R]
) -> Iterator[R]:
    """Yield `write(item, work(item, read(item)))` for each item, in order.

    `work` runs in the calling thread. What an earlier item has been worked on is written, also if a later one fails.

    Args:
        items: what to do.
        read: what `work` needs of an item.
        work: the part that waits for another device.
        write: stores what `work` returned.
    """
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        ahead: Future[Content] | None = reader.submit(read, items[0]) if items else None
        behind: Future[R] | None = None
        for index, item in enumerate(items):
            assert ahead is not None
            content = ahead.result()
            ahead = reader.submit(read, items[index + 1]) if index + 1 < len(items) else None
            done = work(item, content)
            if behind is not None:
                yield behind.result()
            behind = writer.submit(write, item, done)
            del content, done
        if behind is not None:
            yield behind.result()
