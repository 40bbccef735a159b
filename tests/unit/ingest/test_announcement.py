"""What an event tells of a header with an absurd number of elements."""

from imaging_services.domain.dicom.elements import (
    MOST_ELEMENTS,
    SERIES_INSTANCE_UID,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    Header,
    scan,
)
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_LITTLE
from imaging_services.domain.ingest.announcement import elements_json
from support.instances import element

_PRIVATE = 0x00090000


def test_private_elements_are_left_out_when_there_are_too_many() -> None:
    private = b"".join(element(_PRIVATE + number % 0x10000, b"LO", b"x ") for number in range(20_000))
    known = (SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID)
    uids = b"".join(element(tag, b"UI", b"1.2.3\0") for tag in known)
    header = scan(private + uids, EXPLICIT_LITTLE, ended=True)
    assert len(header.elements) == len(known), "what is left out is not kept in memory either"
    assert header.uid(STUDY_INSTANCE_UID) == "1.2.3"
    assert [one["group"] for one in elements_json(header)] == ["0008", "0008", "0020", "0020"]


def test_identifiers_are_kept_behind_too_many_elements_and_once_only() -> None:
    others = b"".join(element(0x00180000 + number, b"LO", b"x ") for number in range(MOST_ELEMENTS + 10))
    uids = b"".join(element(tag, b"UI", b"1.2.3\0") for tag in (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID))
    header = scan(others + 1000 * uids, EXPLICIT_LITTLE, ended=True)
    assert (header.uid(STUDY_INSTANCE_UID), header.uid(SERIES_INSTANCE_UID)) == ("1.2.3", "1.2.3")
    assert len(header.elements) == MOST_ELEMENTS + 3


def test_private_elements_are_announced_as_the_others_are() -> None:
    header = Header([(_PRIVATE + number, "LO", b"x") for number in range(100)])
    header.elements.append((STUDY_INSTANCE_UID, "UI", b"1.2.3"))
    assert len(elements_json(header)) == 101
