"""A data set in another encoding (Implicit or Explicit VR, byte order) without decoding values: text stays as it was,
with whatever is wrong in it. Blocking, reads long values from the file."""

from io import BytesIO
from typing import Any, cast

from pydicom import Dataset
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filebase import DicomIO
from pydicom.filewriter import correct_ambiguous_vr_element, write_dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from imaging_services.domain.dicom.byte_order import swapped
from imaging_services.domain.dicom.header import SEQUENCE_BYTES, Element, effective_vr, is_deferred, raw_elements
from imaging_services.domain.dicom.json_values import word_size
from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.dicom.transfer_syntaxes import Encoding
from imaging_services.domain.errors import PermanentError


def recoded(dataset: Dataset, file: RangeFile, source: Encoding, target: Encoding) -> Dataset:
    """The same elements for the target's encoding, all values at hand. Group lengths, wrong by then, are dropped.

    Raises ``PermanentError`` for a value of more than 64 MiB, or for long ones of more than 128 MiB together.
    """
    return _Recoder(file, source, target).data_set(dataset, [dataset])


def written(dataset: Dataset, encoding: Encoding) -> bytes:
    """The bytes of a data set that ``recoded`` gave."""
    buffer = BytesIO()
    out = DicomIO(buffer)
    out.is_little_endian, out.is_implicit_VR = encoding.little_endian, encoding.implicit
    # Told that nothing has changed, pydicom writes raw elements as they are.
    dataset.set_original_encoding(encoding.implicit, encoding.little_endian, dataset._character_set)
    write_dataset(out, dataset)
    return buffer.getvalue()


class _Recoder:
    def __init__(self, file: RangeFile, source: Encoding, target: Encoding) -> None:
        self._file, self._target = file, target
        self._same = (source.implicit, source.little_endian) == (target.implicit, target.little_endian)
        self._swaps = source.little_endian != target.little_endian
        self._held = 0

    def data_set(self, dataset: Dataset, around: list[Dataset]) -> Dataset:
        """``around``: the data set itself, then those that it lies in."""
        kept: dict[BaseTag, Any] = {}
        for element in raw_elements(dataset):
            if element.tag & 0xFFFF:
                kept[BaseTag(element.tag)] = self._element(dataset, element, around)
        result = Dataset(kept)
        result.is_undefined_length_sequence_item = dataset.is_undefined_length_sequence_item
        result.set_original_encoding(self._target.implicit, self._target.little_endian, dataset._character_set)
        return result

    def _element(self, dataset: Dataset, element: Element, around: list[Dataset]) -> Element:
        if isinstance(element, RawDataElement) and is_deferred(element):
            element = self._loaded(element)
        if self._same:
            return element
        vr = effective_vr(element)
        if vr == "SQ":
            return self._sequence(_decoded(dataset, element), around)
        if isinstance(element, DataElement):
            return element
        vr = vr or _resolved(dataset, element, around)
        value = element.value or b""
        if self._swaps and len(value) % word_size(vr) == 0:
            value = swapped(value, word_size(vr))
        return element._replace(
            VR=vr, value=value, is_implicit_VR=self._target.implicit, is_little_endian=self._target.little_endian
        )

    def _sequence(self, element: DataElement, around: list[Dataset]) -> DataElement:
        items = [self.data_set(item, [item, *around]) for item in element.value]
        result = DataElement(element.tag, "SQ", Sequence(items))
        result.is_undefined_length = element.is_undefined_length
        return result

    def _loaded(self, element: RawDataElement) -> RawDataElement:
        if element.length > SEQUENCE_BYTES:
            raise PermanentError(f"the value of {BaseTag(element.tag)} is too long: {element.length} bytes")
        self._held += element.length
        if self._held > 2 * SEQUENCE_BYTES:
            raise PermanentError(f"the values of the data set are too long together: {self._held} bytes")
        return element._replace(value=self._file.read_at(element.value_tell, element.length))


def _decoded(dataset: Dataset, element: Element) -> DataElement:
    if isinstance(element, DataElement):
        return element
    holder = Dataset({BaseTag(element.tag): cast(Any, element)})
    implicit, little_endian = dataset.original_encoding
    holder.set_original_encoding(implicit, little_endian, dataset.original_character_set)
    return holder[element.tag]


def _resolved(dataset: Dataset, element: RawDataElement, around: list[Dataset]) -> str:
    """The VR that depends on other elements, such as US or SS on Pixel Representation; UN when there is none."""
    try:
        corrected = correct_ambiguous_vr_element(_decoded(dataset, element), dataset, element.is_little_endian, around)
    except (AttributeError, KeyError, ValueError):  # what it depends on is missing
        return "UN"
    vr = str(corrected.VR)
    return vr if len(vr) == 2 else "UN"
