"""What an event tells of a header with an absurd number of elements."""

from imaging_services.domain.dicom.elements import Header
from imaging_services.domain.ingest.announcement import elements_json

_PRIVATE = 0x00090000
_STUDY_INSTANCE_UID = 0x0020000D


def test_private_elements_are_left_out_when_there_are_too_many() -> None:
    header = Header([(_PRIVATE + number, "LO", b"x") for number in range(20_000)])
    header.elements.append((_STUDY_INSTANCE_UID, "UI", b"1.2.3"))
    assert [(one["group"], one["value"]) for one in elements_json(header)] == [("0020", "1.2.3")]


def test_private_elements_are_announced_as_the_others_are() -> None:
    header = Header([(_PRIVATE + number, "LO", b"x") for number in range(100)])
    header.elements.append((_STUDY_INSTANCE_UID, "UI", b"1.2.3"))
    assert len(elements_json(header)) == 101
