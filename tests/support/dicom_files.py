"""Real DICOM files: those that pydicom ships, taken apart without decoding."""

import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pydicom
from pydicom.filewriter import write_file_meta_info

_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


@dataclass(frozen=True)
class DicomFile:
    """One file: its identifiers as the data set says them, and the data set's bytes as they lie in the file."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    data_set: bytes

    @property
    def identity(self) -> tuple[str, str, str]:
        """Study, series and instance UID."""
        return self.study_instance_uid, self.series_instance_uid, self.sop_instance_uid

    @property
    def resource(self) -> str:
        """Path of the instance below a DICOMweb base URL."""
        return f"studies/{self.study_instance_uid}/series/{self.series_instance_uid}/instances/{self.sop_instance_uid}"

    def write_part10(self, path: Path) -> Path:
        """Write a Part 10 file whose meta header agrees with the data set."""
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID = self.sop_class_uid
        meta.MediaStorageSOPInstanceUID = self.sop_instance_uid
        meta.TransferSyntaxUID = self.transfer_syntax_uid
        with path.open("wb") as file:
            file.write(b"\0" * 128 + b"DICM")
            write_file_meta_info(file, meta, enforce_standard=True)
            file.write(self.data_set)
        return path


@cache
def storable_files() -> tuple[DicomFile, ...]:
    """Every file that pydicom ships and reads, and that names its SOP class, instance, series and study."""
    root = Path(pydicom.__file__).parent / "data"
    paths = [path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix not in {".py", ".pyc"}]
    with warnings.catch_warnings(action="ignore"):  # the files are awkward on purpose
        return tuple(file for file in map(_read, paths) if file)


def data_set_of(part10: bytes) -> bytes:
    """The bytes after the file meta information of a Part 10 file."""
    assert part10[128:132] == b"DICM"
    length = int.from_bytes(part10[140:144], "little")  # value of (0002,0000), always the first element
    return part10[144 + length :]


def _read(path: Path) -> DicomFile | None:
    try:
        head = pydicom.dcmread(path, stop_before_pixels=True)
    except (pydicom.errors.InvalidDicomError, EOFError):
        return None
    syntax = head.file_meta.get("TransferSyntaxUID")
    if not syntax or not all(head.get(keyword) for keyword in _IDENTIFIERS):
        return None
    return DicomFile(
        path,
        *(str(head[k].value) for k in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")),
        str(syntax),
        _data_set(path),
    )


def _data_set(path: Path) -> bytes:
    with path.open("rb") as file:
        pydicom.filereader.read_preamble(file, force=True)
        pydicom.filereader._read_file_meta_info(file)
        return file.read()
