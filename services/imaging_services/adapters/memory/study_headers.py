"""Kept headers of instances in memory: of a service that does not reach the database itself, and for tests."""

from collections import OrderedDict
from collections.abc import Mapping


class MemoryHeaders:
    """See ``KeptHeaders``. At most ``limit`` bytes; the studies that were not asked for the longest go first."""

    def __init__(self, limit: int = 64 * 1024 * 1024) -> None:
        self._limit, self._held = limit, 0
        self._studies: OrderedDict[tuple[str, str], dict[str, bytes]] = OrderedDict()

    async def load(self, study_instance_uid: str, provider: str) -> dict[str, bytes]:
        """See ``KeptHeaders.load``."""
        key = (study_instance_uid, provider)
        if key in self._studies:
            self._studies.move_to_end(key)
        return dict(self._studies.get(key, {}))

    async def save(self, study_instance_uid: str, provider: str, headers: Mapping[str, bytes]) -> None:
        """See ``KeptHeaders.save``."""
        key = (study_instance_uid, provider)
        study = self._studies.setdefault(key, {})
        self._held -= _size(study)
        study.update(headers)
        self._held += _size(study)
        self._studies.move_to_end(key)
        while self._held > self._limit:
            self._held -= _size(self._studies.popitem(last=False)[1])


def _size(study: Mapping[str, bytes]) -> int:
    return sum(len(name) + len(header) for name, header in study.items())
