"""Two sorted streams side by side: names that either lacks, spaces that list out of turn, streams that break off."""

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import TypeVar

import pytest

from imaging_services.domain.audit.merge import closing, going_on, in_chunks, merged
from imaging_services.domain.audit.model import Entry, Role
from imaging_services.domain.audit.turns import each
from imaging_services.domain.errors import BackendUnavailable, NotFound
from imaging_services.domain.manifest.deletion import earlier_names
from imaging_services.domain.ports import ObjectInfo

T = TypeVar("T")


async def stream(things: Iterable[T]) -> AsyncIterator[T]:
    for one in things:
        yield one


async def places(objects: str, entries: str) -> list[tuple[str, bool, int]]:
    """Each name with whether there is an object, and how many entries there are; names of one letter."""
    now = datetime.now(UTC)
    infos = stream([ObjectInfo(key, 1, now) for key in objects])
    known = stream([Entry(name, Role.INSTANCE) for name in entries])
    return [(one.key, one.info is not None, len(one.entries)) async for one in merged(infos, known)]


@pytest.mark.parametrize(
    ("objects", "entries", "expected"),
    [
        ("", "", []),
        ("ab", "", [("a", True, 0), ("b", True, 0)]),
        ("", "ab", [("a", False, 1), ("b", False, 1)]),
        ("ac", "abbc", [("a", True, 1), ("b", False, 2), ("c", True, 1)]),
        ("abcd", "bd", [("a", True, 0), ("b", True, 1), ("c", True, 0), ("d", True, 1)]),
        ("acb", "abc", [("a", True, 1), ("b", False, 1), ("c", True, 1), ("b", True, 0)]),  # out of turn
    ],
)
async def test_side_by_side(objects: str, entries: str, expected: list[tuple[str, bool, int]]) -> None:
    assert await places(objects, entries) == expected


async def test_chunks() -> None:
    assert [chunk async for chunk in in_chunks(stream("abcde"), 2)] == [["a", "b"], ["c", "d"], ["e"]]
    assert [chunk async for chunk in in_chunks(stream(""), 2)] == []


async def test_a_stream_that_breaks_off_goes_on_behind_the_last_one() -> None:
    began: list[str] = []
    breaks = {"c": 2, "f": 1}

    async def some(after: str) -> AsyncIterator[str]:
        began.append(after)
        for one in "abcdefgh":
            if one > after:
                if breaks.get(one, 0):
                    breaks[one] -= 1
                    raise BackendUnavailable("broken off")
                yield one

    assert [one async for one in going_on(some, str, "", pause=0)] == list("abcdefgh")
    assert began == ["", "b", "b", "e"]


async def test_a_stream_that_never_goes_on_is_given_up() -> None:
    began = 0

    async def never(after: str) -> AsyncIterator[str]:
        nonlocal began
        began += 1
        if not after:
            yield "a"
        raise BackendUnavailable("away")

    with pytest.raises(BackendUnavailable, match="away"):
        _ = [one async for one in going_on(never, str, "", pause=0)]
    assert began == 5


async def test_what_is_read_in_part_is_closed() -> None:
    closed = False

    async def held(after: str) -> AsyncIterator[str]:
        nonlocal closed
        try:
            yield "a"
            yield "b"
        finally:
            closed = True

    async with closing(going_on(held, str, "")) as some:
        assert await anext(some) == "a"
        assert not closed
    assert closed


async def test_turns_end_with_the_first_error() -> None:
    seen: list[int] = []

    async def work(number: int) -> None:
        seen.append(number)
        if number == 3:
            raise NotFound("the third")

    with pytest.raises(NotFound, match="the third"):
        await each(1, range(10), work)
    assert seen == [0, 1, 2, 3]


def test_numbers_in_names_tell_of_deleted_ones() -> None:
    digest = "0" * 64
    assert earlier_names(f"{digest}.dcm") == []
    assert earlier_names(f"{digest}-2.dcm") == [f"{digest}.dcm", f"{digest}-1.dcm"]
    assert earlier_names("other-2.dcm") == []
