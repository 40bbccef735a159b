"""Processes that get a part of a core each: stopped for the rest of the time, turn by turn.

So a machine with few cores shows what several processes do together when each has a core to itself and the others of
the machine have enough as well: as if the throttled ones were slower by that part.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

PERIOD = 0.02
"""Seconds in which each runs once."""


@contextmanager
def throttled(pids: Sequence[int], share: float) -> Iterator[None]:
    """Let each run for ``share`` of the time, one after the other, during the block; 1 leaves them alone."""
    if share >= 1:
        yield
        return
    if share * len(pids) > 1:
        raise ValueError(f"{len(pids)} processes cannot have {share} of the time each, one after the other")
    over = threading.Event()
    thread = threading.Thread(target=_turns, args=(pids, share, over))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _turns(pids: Sequence[int], share: float, over: threading.Event) -> None:
    """By the clock, so that a late turn does not make the next ones late."""
    running, place = share * PERIOD, PERIOD / len(pids)
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        due = time.monotonic()
        while not over.is_set():
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
                time.sleep(running)
                os.kill(pid, signal.SIGSTOP)
                due += place
                time.sleep(max(due - time.monotonic(), 0))
            due = max(due, time.monotonic() - PERIOD)
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
