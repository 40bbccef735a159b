"""Presentation states as DCMTK's dcmp2pgm renders them, which does so without shutters, areas and graphics."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from imaging_services.adapters.rendering.image import render_frame
from imaging_services.adapters.rendering.presentation import Presentation
from imaging_services.adapters.rendering.presentation_state import GRAYSCALE, presentation_state_for
from support.instances import part10
from support.peers import dcmtk_program
from support.rendering import item, pixels_of

WINDOW = {"SoftcopyVOILUTSequence": [item(WindowCenter=-500, WindowWidth=1500)]}
GAMMA = b"".join(int((value / 255) ** 2 * 65535).to_bytes(2, "little") for value in range(256))
EMPTY = (
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "Manufacturer",
    "ContentDescription",
    "ContentCreatorName",
)


def state_about(image: pydicom.Dataset, **attributes: Any) -> pydicom.Dataset:
    """A complete Grayscale Softcopy Presentation State."""
    about = item(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)
    series = item(SeriesInstanceUID=image.SeriesInstanceUID, ReferencedImageSequence=[about])
    whole = item(
        DisplayedAreaTopLeftHandCorner=[1, 1],
        DisplayedAreaBottomRightHandCorner=[image.Columns, image.Rows],
        PresentationSizeMode="SCALE TO FIT",
        PresentationPixelAspectRatio=[1, 1],
    )
    return item(
        **dict.fromkeys(EMPTY, ""),
        PatientName="Doe^Jane",
        PatientID="P-1",
        SOPClassUID=GRAYSCALE,
        SOPInstanceUID="1.2.3.9",
        StudyInstanceUID=image.StudyInstanceUID,
        SeriesInstanceUID="1.2.3.8",
        SeriesNumber=1,
        InstanceNumber=1,
        Modality="PR",
        ContentLabel="STATE",
        PresentationCreationDate="20240101",
        PresentationCreationTime="120000",
        RescaleIntercept=-1024,
        RescaleSlope=1,
        RescaleType="HU",
        ReferencedSeriesSequence=[series],
        DisplayedAreaSelectionSequence=[whole],
        **attributes,
    )


@pytest.mark.parametrize(
    "attributes",
    [
        {"PresentationLUTShape": "IDENTITY"},
        {"PresentationLUTShape": "INVERSE", **WINDOW},
        {"PresentationLUTSequence": [item(LUTDescriptor=[256, 0, 16], LUTData=GAMMA)], **WINDOW},
        {"PresentationLUTShape": "IDENTITY", "ImageRotation": 90, "ImageHorizontalFlip": "Y", **WINDOW},
        {"PresentationLUTShape": "IDENTITY", "ImageRotation": 270, "ImageHorizontalFlip": "N", **WINDOW},
    ],
    ids=["no-luts", "inverse", "presentation-lut", "turned-and-flipped", "turned-left"],
)
def test_dcmtk_shows_the_same(attributes: dict[str, Any], tmp_path: Path) -> None:
    path = str(get_testdata_file("CT_small.dcm"))
    image = pydicom.dcmread(path)
    (tmp_path / "state.dcm").write_bytes(part10(state_about(image, **attributes)))
    files = [tmp_path / "state.dcm", "--pgm", path, tmp_path / "shown.pgm"]
    subprocess.run([dcmtk_program("dcmp2pgm"), "--pstate", *files], check=True, capture_output=True, timeout=60)
    theirs = np.asarray(Image.open(tmp_path / "shown.pgm")).astype(int)
    state = presentation_state_for(pydicom.dcmread(tmp_path / "state.dcm"), image.SOPInstanceUID)
    presentation = Presentation(state=state)
    ours = render_frame(image.pixel_array, "MONOCHROME2", image, pixels_of(image), 1, presentation)
    # DCMTK rounds down, also between VOI LUT and Presentation LUT, where the latter is up to two times as steep.
    assert np.abs(np.asarray(ours).astype(int) - theirs).max() <= 3
