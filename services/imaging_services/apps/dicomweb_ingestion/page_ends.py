"""Where the pages of searches ended, so that the next page goes on there.

``offset`` counts results (PS3.18 section 8.3.4.4), and what is stored between two requests would shift them: a client
would see some twice, or after a deletion miss some. A process remembers the last result of each page for a while;
where it does not know it, the offset counts.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

_REMEMBERED = 4096
_SECONDS = 600.0

Uids = tuple[str, ...]


def page_key(path: str, parameters: Iterable[tuple[str, str]]) -> bytes:
    """What all pages of one search have in common."""
    others = sorted((name, value) for name, value in parameters if name.lower() not in ("limit", "offset"))
    return hashlib.sha256(repr((path, others)).encode()).digest()


class PageEnds:
    """The last results of recent pages by search and by the offset of the page that follows."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends: OrderedDict[tuple[bytes, int], tuple[float, Uids]] = OrderedDict()

    def remember(self, key: bytes, offset: int, last: Uids) -> None:
        """The page before this offset ended with that result."""
        self._ends[key, offset] = self._clock() + _SECONDS, last
        self._ends.move_to_end((key, offset))
        if len(self._ends) > _REMEMBERED:
            self._ends.popitem(last=False)

    def behind(self, key: bytes, offset: int) -> Uids | None:
        """The result that the page at this offset begins behind."""
        expires, last = self._ends.get((key, offset), (0.0, None))
        return last if self._clock() < expires else None
