"""How long the event log keeps events, and how often and how patiently it delivers them."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from imaging_services.domain.errors import SettingsError

# 16 tries with these delays (the last repeats) give a subscriber about ten hours to come back.
RETRY_DELAYS = (1.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)


@dataclass(frozen=True, slots=True)
class EventPolicy:
    """Limits of the streams and of delivery; delays in seconds, ``max_bytes`` 0 means no limit."""

    retention: timedelta = timedelta(days=30)
    dead_letter_retention: timedelta = timedelta(days=90)
    max_bytes: int = 0
    duplicate_window: timedelta = timedelta(minutes=10)
    replicas: int = 1
    compressed: bool = True
    """The log's streams are compressed on the server's disk; one that is stays so."""
    retry_delays: tuple[float, ...] = RETRY_DELAYS
    max_tries: int = 16
    ack_wait: timedelta = timedelta(seconds=30)
    deliver_from: Literal["all", "new"] = "all"
    domain: str | None = None
    """JetStream domain that has the streams; None: that of the server."""

    def delay(self, tries: int) -> float:
        """Seconds to wait after this many tries."""
        return self.retry_delays[min(tries, len(self.retry_delays)) - 1]


def parse_delays(text: str) -> tuple[float, ...]:
    """Delays of a setting such as ``1,5,30``. Raises ``SettingsError``."""
    try:
        delays = tuple(float(part) for part in text.split(","))
    except ValueError:
        delays = ()
    if not delays or any(not 0 < delay < 86_400 for delay in delays):
        raise SettingsError(f"retry delays {text!r} are not seconds separated by commas, each under a day")
    return delays
