"""How many jobs for one AE are at work: an AE that is away or slow holds no others up."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from imaging_services.domain.jobs import NotYet

_REMEMBERED = 1000


@dataclass(slots=True)
class Lane:
    """The jobs for one AE: how many are at work, and whether the last try has failed."""

    busy: int = 0
    away: bool = False

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Try to reach the AE in the block, which raises when it cannot be done."""
        try:
            yield
            self.away = False
        except Exception:
            self.away = True
            raise


class Lanes:
    """At most ``most`` for each AE at a time; for one that the last try has not reached, one at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lanes: dict[str, Lane] = {}

    @contextmanager
    def of(self, title: str) -> Iterator[Lane]:
        """A place among those of this AE for the length of the block. Raises ``NotYet`` when there is none, or
        while an AE that was away is being tried: the job has then had no try of its own."""
        lane = self._lanes.setdefault(title, Lane())
        if lane.away and lane.busy:
            raise NotYet(f"{title} could not be reached, and is being tried already")
        if lane.busy >= self._most:
            raise NotYet(f"{lane.busy} jobs for {title} are under way")
        lane.busy += 1
        try:
            yield lane
        finally:
            lane.busy -= 1
            self._forget()

    def _forget(self) -> None:
        if len(self._lanes) > _REMEMBERED:
            self._lanes = {title: lane for title, lane in self._lanes.items() if lane.busy}
