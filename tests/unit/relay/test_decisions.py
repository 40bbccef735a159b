"""What the relay decides: retries, meaning of statuses, admission, integrity."""

from datetime import timedelta

import pytest

from imaging_services.domain.dicom.command_set import store_request
from imaging_services.domain.dicom.dimse import (
    CALLED_AE_NOT_RECOGNIZED,
    CALLING_AE_NOT_RECOGNIZED,
    AssociationRequest,
    StoreAnswer,
)
from imaging_services.domain.errors import (
    BackendUnavailable,
    DataSetMismatch,
    DeadlineExceeded,
    OutOfResources,
    Refused,
    RetryableError,
)
from imaging_services.domain.relay.admission import Admission, titles
from imaging_services.domain.relay.checked import checked, single
from imaging_services.domain.relay.disposition import failure_of
from imaging_services.domain.relay.messages import Call, Origin, StoreMessage
from imaging_services.domain.relay.retry import RetryPolicy

POLICY = RetryPolicy(max_tries=4, outage=timedelta(hours=1))
NOW, LATE = timedelta(0), timedelta(hours=2)


@pytest.mark.parametrize(
    ("error", "tries", "age", "delay"),
    [
        (DataSetMismatch("x"), 1, NOW, None),
        (Refused("x"), 1, NOW, None),
        (OutOfResources("x"), 1, NOW, 5),
        (OutOfResources("x"), 3, NOW, 20),
        (OutOfResources("x"), 4, NOW, None),
        (RetryableError("x"), 2, NOW, 4),
        (ValueError("unforeseen"), 1, NOW, 2),
        (ValueError("unforeseen"), 4, NOW, None),
        (BackendUnavailable("x"), 1, NOW, 1),
        (BackendUnavailable("x"), 1000, NOW, 60),
        (DeadlineExceeded("x"), 4, NOW, 8),
        (BackendUnavailable("x"), 3, LATE, 4),
        (BackendUnavailable("x"), 4, LATE, None),
    ],
)
def test_retries(error, tries, age, delay):
    assert POLICY.delay(error, tries, age) == delay


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (0x0000, type(None)),
        (0xB000, type(None)),
        (0xB007, type(None)),
        (0x0107, type(None)),
        (0xA700, OutOfResources),
        (0xA701, OutOfResources),
        (0x0110, RetryableError),
        (0xA900, Refused),
        (0xC123, Refused),
        (0x0122, Refused),
        (0x0124, Refused),
    ],
)
def test_statuses(status, kind):
    failure = failure_of(StoreAnswer(status, "why"))
    assert type(failure) is kind
    assert failure is None or f"{status:04X}H why" in str(failure)


@pytest.mark.parametrize(
    ("calling", "called", "outcome"),
    [
        ("CT1", "OWN", None),
        ("MR 1", "TARGET", None),
        ("CT1", "own", CALLED_AE_NOT_RECOGNIZED),
        ("US1", "OWN", CALLING_AE_NOT_RECOGNIZED),
        ("", "OWN", CALLING_AE_NOT_RECOGNIZED),
    ],
)
def test_admission(calling, called, outcome):
    admission = Admission(frozenset({"OWN", "TARGET"}), titles(" CT1,MR 1 ,, "))
    assert admission.refusal(AssociationRequest("id", calling, called, (), 0, "peer")) == outcome


def test_admission_without_checks():
    admission = Admission(frozenset({"OWN"}), check_called=False)
    assert admission.refusal(AssociationRequest("id", "ANY", "OTHER", (), 0, "peer")) is None


@pytest.mark.parametrize(("size", "digest"), [(4, "0" * 64), (5, None)])
async def test_damaged_data_is_found(size, digest):
    call = Call(Origin("a", "b", "c"), "1.2", "1.3", store_request("1.2", "1.4"))
    good = "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"  # of b"data"
    message = StoreMessage(call, "m", size, digest or good)
    with pytest.raises(RetryableError, match="damaged"):
        [block async for block in checked(message, single(b"data"))()]
    whole = StoreMessage(call, "m", 4, good)
    assert [block async for block in checked(whole, single(b"data"))()] == [b"data"]
