"""What a C-STORE status means for the instance that was sent."""

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from imaging_services.apps.instance_binding.c_store import WARNINGS, judge
from imaging_services.domain.errors import BackendUnavailable, ImagingError, OutOfResources, Refused


def test_success() -> None:
    with structlog.testing.capture_logs() as lines:
        judge(0x0000, "", "1.2.3")
    assert lines == []


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0x0107, 0x0111, 0x0116])
def test_warnings_are_logged_and_counted(status: int) -> None:
    before = WARNINGS._value.get()
    with structlog.testing.capture_logs() as lines:
        judge(status, "", "1.2.3")
    assert lines[0]["status"] == f"{status:04X}H"
    assert WARNINGS._value.get() == before + 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (0xA700, OutOfResources),
        (0xA7AB, OutOfResources),
        (0xFE00, BackendUnavailable),
        (0xA900, Refused),
        (0xC000, Refused),
        (0xCFFF, Refused),
        (0x0110, Refused),
        (0x0122, Refused),
        (0x0124, Refused),
        (0x1234, Refused),
    ],
)
def test_failures(status: int, error: type[ImagingError]) -> None:
    with pytest.raises(error, match=rf"{status:04X}H \(disk full\)"):
        judge(status, "disk full", "1.2.3")


@given(st.integers(1, 0xFFFF))
def test_nothing_but_success_and_warnings_is_taken_as_stored(status: int) -> None:
    try:
        judge(status, "", "1.2.3")
    except ImagingError:
        return
    assert status & 0xF000 == 0xB000 or status in (0x0001, 0x0107, 0x0111, 0x0116)
