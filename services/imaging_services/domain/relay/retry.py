"""When a store that failed is tried again, and when it becomes a dead letter."""

from dataclasses import dataclass
from datetime import timedelta

from imaging_services.domain.errors import BackendUnavailable, DeadlineExceeded, OutOfResources, is_retryable


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """``max_tries`` bounds the tries of a message that its receiver answers with a failure. While the receiver cannot
    be reached at all, every message fails: that is an outage and counts against ``outage`` instead."""

    max_tries: int
    outage: timedelta

    def delay(self, error: BaseException, tries: int, age: timedelta) -> float | None:
        """Seconds to wait after the given number of tries (1 is the first), or None for a dead letter."""
        if not is_retryable(error):
            return None
        away = isinstance(error, BackendUnavailable | DeadlineExceeded)
        if tries >= self.max_tries and not (away and age < self.outage):
            return None
        first, longest = _growth(error)
        return float(min(first * 2 ** min(tries - 1, 16), longest))


def _growth(error: BaseException) -> tuple[float, float]:
    if isinstance(error, BackendUnavailable | DeadlineExceeded):
        return 1, 60
    if isinstance(error, OutOfResources):
        return 5, 300
    return 2, 300
