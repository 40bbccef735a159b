"""What keeps a repair from marking everything as missing: a wrong bucket, or one that is not mounted, is no loss."""

from imaging_services.domain.audit.merge import closing
from imaging_services.domain.errors import Conflict
from imaging_services.domain.ports import ObjectStore

FEW = 100
"""So many missing instances are marked whatever part of all they are."""
_PART = 10  # one in so many


class Brake:
    """Counts instances and what is missing of them, while an audit goes on."""

    def __init__(self, space: ObjectStore, *, applied: bool) -> None:
        self._space, self._applied = space, applied
        self._names = self._missing = 0
        self._empty: bool | None = None

    def seen(self, names: int) -> None:
        """So many more names of instances' objects."""
        self._names += names

    async def check(self, missing: int) -> None:
        """So many more are missing. Raises ``Conflict`` when the space is empty, or when more than 100 and more than
        10 % of the names seen are missing."""
        self._missing += missing
        if not missing or not self._applied:
            return
        if await self._is_empty():
            raise Conflict(
                "the storage space is empty, the manifest is not: is it the right one? "
                "--mark-all marks every instance as missing"
            )
        if self._missing > FEW and self._missing * _PART > self._names:
            raise Conflict(
                f"{self._missing:,} of {self._names:,} instances' objects are missing: is it the right storage space? "
                "--mark-all marks them all the same"
            )

    async def _is_empty(self) -> bool:
        if self._empty is None:
            async with closing(self._space.list("")) as objects:
                self._empty = await anext(objects, None) is None
        return self._empty
