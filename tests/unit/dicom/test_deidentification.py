"""The Basic Application Level Confidentiality Profile on data sets."""

from typing import Any

import pytest
from pydicom import Dataset

from imaging_services.domain.dicom.confidentiality_profile import BASIC_PROFILE, Action
from imaging_services.domain.dicom.deidentification import Deidentifier
from imaging_services.domain.errors import CannotTranscode
from support.rendering import item

CT, SR, US, PDF = (f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("2", "88.11", "6.1", "104.1"))
TALAIRACH = "1.2.840.10008.1.4.1.1"


def an_image(**attributes: Any) -> Dataset:
    """With something of each kind of attribute."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.StudyInstanceUID = CT, "1.2.3", "1.2.4"
    dataset.PatientName, dataset.PatientID, dataset.Modality = "Yamada^Tarou", "4711", "CT"
    dataset.StudyDate, dataset.SeriesDate, dataset.StudyDescription = "20240110", "20240111", "Head of Yamada"
    dataset.InstitutionName, dataset.SliceThickness, dataset.FrameOfReferenceUID = "General", "1.5", TALAIRACH
    dataset.ReferencedImageSequence = [item(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID="1.2.3")]
    dataset.OperatorIdentificationSequence = [
        item(InstitutionName="General", PersonIdentificationCodeSequence=[item(CodeValue="Yamada", CodeMeaning="x")])
    ]
    dataset.CTExposureSequence = [item(ExposureTimeInms=5.0, PatientComments="Yamada")]
    dataset.add_new(0x00091010, "LO", "Yamada inside")
    dataset.add_new(0x60003000, "OW", b"Yamada  ")
    dataset.add_new(0x0008FFF0, "LO", "Yamada unknown to the Standard")
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def deidentified(dataset: Dataset) -> Dataset:
    Deidentifier().apply(dataset)
    return dataset


def test_the_table_has_the_attributes_that_everybody_knows() -> None:
    assert len(BASIC_PROFILE) > 600
    known = {
        0x00100010: Action.EMPTY,
        0x00100020: Action.DUMMY,
        0x00081030: Action.REMOVE,
        0x0020000D: Action.REPLACE_UID,
    }
    assert {tag: BASIC_PROFILE[tag] for tag in known} == known


def test_nothing_of_who_it_was_is_left() -> None:
    changed = deidentified(an_image())
    assert "Yamada" not in str(changed)
    assert "General" not in str(changed)
    assert not {0x00091010, 0x60003000, 0x0008FFF0, 0x00081030} & {int(element.tag) for element in changed}
    assert (changed.PatientName, changed.StudyDate, changed.Modality) == (None, None, "CT")
    assert changed.PatientID
    assert changed.SeriesDate == "19000101"
    assert changed.SliceThickness == 1.5
    assert changed.CTExposureSequence[0].ExposureTimeInms == 5.0


def test_it_says_what_was_done() -> None:
    changed = deidentified(an_image())
    assert changed.PatientIdentityRemoved == "YES"
    assert changed.LongitudinalTemporalInformationModified == "REMOVED"
    assert [code.CodeValue for code in changed.DeidentificationMethodCodeSequence] == ["113100"]
    clean = deidentified(an_image(BurnedInAnnotation="NO"))
    assert [code.CodeValue for code in clean.DeidentificationMethodCodeSequence] == ["113100", "113101"]


def test_uids_are_consistent_within_one_and_unlinkable_between_two() -> None:
    one, two = deidentified(an_image()), deidentified(an_image())
    for changed in (one, two):
        assert changed.ReferencedImageSequence[0].ReferencedSOPInstanceUID == changed.SOPInstanceUID != "1.2.3"
        assert changed.ReferencedImageSequence[0].ReferencedSOPClassUID == changed.SOPClassUID == CT
        assert changed.FrameOfReferenceUID == TALAIRACH
    assert len({one.SOPInstanceUID, two.SOPInstanceUID, one.StudyInstanceUID, two.StudyInstanceUID}) == 4


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"BurnedInAnnotation": "YES"}, "Burned In Annotation is YES"),
        ({"SOPClassUID": US}, "Burned In Annotation is not NO"),
        ({"SOPClassUID": SR, "BurnedInAnnotation": "NO"}, "says anywhere"),
        ({"SOPClassUID": PDF}, "says anywhere"),
    ],
)
def test_what_shows_or_tells_who_it_is_is_refused(attributes: dict[str, str], reason: str) -> None:
    with pytest.raises(CannotTranscode, match=reason):
        deidentified(an_image(**attributes))
