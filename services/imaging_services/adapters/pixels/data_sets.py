"""The data set around transcoded pixel data: what the Standard asks to be changed in it (PS3.5 section 8.2 and annex
A.4; PS3.3 sections C.7.6.1.1.5 and C.7.6.3). Blocking, reads from the file."""

import hashlib
import uuid
from dataclasses import dataclass
from typing import Protocol

from pydicom import Dataset
from pydicom.sequence import Sequence

from imaging_services.adapters.pixels.reencoding import recoded, written
from imaging_services.adapters.pixels.syntaxes import JPEG_DCT, LOSSY_METHODS
from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.dicom.trailing import read_data_set
from imaging_services.domain.dicom.transfer_syntaxes import Encoding, encoding_of, name_of
from imaging_services.domain.errors import CannotTranscode, ImagingError

_OFFSET_TABLES = (0x7FE00001, 0x7FE00002, 0x7FE00003)  # extended offset table, its lengths, encapsulated total length
_PIXEL_DATA_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_LOSSY_CODE = ("113040", "DCM", "Lossy Compression")


@dataclass(frozen=True, slots=True)
class Around:
    """Bytes of the data set before and behind the pixel data element."""

    before: bytes
    behind: bytes


class Edit(Protocol):
    """A change of attributes that is made on the way, such as a de-identification."""

    def uid(self, original: str) -> str:
        """What a UID becomes."""
        ...

    def apply(self, dataset: Dataset) -> None:
        """Change the data set, whose values are all at hand. Raises ``CannotTranscode`` when that cannot be."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """From one transfer syntax to another. ``photometric_interpretation``: of pixel data that is encoded anew, or None.
    ``ratio``: how much smaller a loss of information made it, None when nothing is lost. ``edit``: further changes."""

    source: str
    target: str
    sop_instance_uid: str
    photometric_interpretation: str | None = None
    ratio: float | None = None
    edit: Edit | None = None


def lossy_instance_uid(sop_instance_uid: str, target: str) -> str:
    """The SOP Instance UID of a version with loss: pixels that a diagnosis may rest on have changed, so it is another
    instance (PS3.3 section C.7.6.1.1.5). The same each time, so what is retrieved or sent twice is one instance."""
    digest = hashlib.sha256(f"{sop_instance_uid} {target}".encode()).digest()[:16]
    return f"2.25.{uuid.UUID(bytes=digest, version=4).int}"


def data_set_around(file: RangeFile, change: Change) -> Around:
    """Encode the elements around the pixel data for the target. Raises ``CannotTranscode`` when that cannot be."""
    dataset, _ = read_data_set(file)
    source, target = _within(change.source), _within(change.target)
    try:
        dataset = recoded(dataset, file, source, target)
        _describe(dataset, change)
        if change.edit is not None:
            change.edit.apply(dataset)
        behind = Dataset({tag: dataset.get_item(tag) for tag in list(dataset.keys()) if tag > max(_PIXEL_DATA_TAGS)})
        for tag in list(behind.keys()):
            del dataset[tag]
        return Around(written(dataset, target), written(behind, target))
    except ImagingError:
        raise
    except Exception as error:  # whatever pydicom raises for a value that is not what its VR says
        raise CannotTranscode(f"the data set cannot be written as {name_of(change.target)}: {error}") from error


def pixel_element_head(tag: int, vr: str, target: str, length: int) -> bytes:
    """Tag, VR and length of the pixel data element; the length is 0xFFFFFFFF for encapsulated pixel data."""
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    return head + (b"" if encoding_of(target).implicit else vr.encode() + b"\0\0") + length.to_bytes(4, "little")


def _within(transfer_syntax_uid: str) -> Encoding:
    """The encoding of the bytes that are deflated, if they are."""
    return encoding_of(transfer_syntax_uid)._replace(deflated=False)


def _describe(dataset: Dataset, change: Change) -> None:
    for tag in _OFFSET_TABLES:  # frames lie elsewhere now
        dataset.pop(tag, None)
    if change.photometric_interpretation is not None:
        dataset.PhotometricInterpretation = change.photometric_interpretation
        if dataset.get("SamplesPerPixel", 1) > 1:
            dataset.PlanarConfiguration = 0
        if change.source in JPEG_DCT and not dataset.get("LossyImageCompression"):
            dataset.LossyImageCompression = "01"  # what was lost stays lost
    if change.ratio is not None:
        _declare_loss(dataset, change, change.ratio)


def _declare_loss(dataset: Dataset, change: Change, ratio: float) -> None:
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionRatio = [*_values(dataset, "LossyImageCompressionRatio"), f"{ratio:.2f}"]
    methods = _values(dataset, "LossyImageCompressionMethod")
    dataset.LossyImageCompressionMethod = [*methods, LOSSY_METHODS[change.target]]
    dataset.ImageType = ["DERIVED", *(_values(dataset, "ImageType")[1:] or ["PRIMARY"])]
    source, code = Dataset(), Dataset()
    source.ReferencedSOPClassUID = dataset.get("SOPClassUID")
    source.ReferencedSOPInstanceUID = dataset.get("SOPInstanceUID")
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = _LOSSY_CODE
    dataset.SourceImageSequence = Sequence([source])
    dataset.DerivationCodeSequence = Sequence([code])
    dataset.SOPInstanceUID = change.sop_instance_uid


def _values(dataset: Dataset, keyword: str) -> list[str]:
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    return [str(value)] if isinstance(value, str | int | float) else [str(item) for item in value]
