"""Synthetic CT studies for the benchmarks: 512 x 512 x 16 bit instances of about 525 KB, each study new."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


@dataclass(frozen=True)
class CtStudy:
    """A study on disk: its UID, patient id and files; ``series_instance_uid`` and, in the files' order,
    ``sop_instance_uids``."""

    study_instance_uid: str
    patient_id: str
    folder: Path
    files: tuple[Path, ...]
    series_instance_uid: str
    sop_instance_uids: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in self.files)


def write_ct_study(folder: Path, instances: int, seed: int) -> CtStudy:
    """Write a study of one series; pixel values are noise over a slope, so that nothing compresses to nothing."""
    folder.mkdir(parents=True)
    template = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    random = np.random.default_rng(seed)
    template.Rows = template.Columns = 512
    template.PatientID = f"BENCH{seed}"
    template.StudyInstanceUID, template.SeriesInstanceUID = generate_uid(), generate_uid()
    template.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slope = np.arange(512 * 512, dtype=np.int32).reshape(512, 512) >> 8
    files, uids = [], []
    for number in range(1, instances + 1):
        template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        template.InstanceNumber = number
        uids.append(str(template.SOPInstanceUID))
        template.PixelData = (slope + random.integers(0, 256, (512, 512))).astype(np.int16).tobytes()
        path = folder / f"{number:04}.dcm"
        template.save_as(path, enforce_file_format=True)
        files.append(path)
    return CtStudy(
        template.StudyInstanceUID,
        template.PatientID,
        folder,
        tuple(files),
        template.SeriesInstanceUID,
        tuple(uids),
    )
