"""Reading a study header document: the client's side."""

import zlib
from dataclasses import dataclass, field

from pydicom.datadict import tag_for_keyword

from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.streaming.text import value_of
from imaging_services.domain.streaming.xml_events import parse_xml

LARGEST_DOCUMENT = 2 * 1024**3
"""Bytes of an inflated document that are believed."""

_GZIP = 16 + zlib.MAX_WBITS
_LONGEST_SIZE = 20  # digits


@dataclass(frozen=True, slots=True)
class HeaderValue:
    """One element: text (values joined by ``\\``), or the items of a sequence; both None when it is excluded, that is
    in the file and not in the document."""

    vr: str
    text: str | None = None
    items: "tuple[dict[int, HeaderValue], ...] | None" = None

    @property
    def excluded(self) -> bool:
        """True when the value was left out."""
        return self.text is None and self.items is None


Attributes = dict[int, HeaderValue]
"""By tag."""


@dataclass(frozen=True, slots=True)
class StreamedInstance:
    """An instance of the document."""

    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    source_ae_title: str
    size: int
    attributes: Attributes

    def number(self, tag: int) -> int | None:
        """The first value as an integer, or None."""
        value = self.attributes.get(tag)
        try:
            return int((value.text or "").split("\\")[0]) if value is not None else None
        except ValueError:
            return None

    @property
    def frames(self) -> int:
        """How many frames there are to ask for; 0 when it is no image."""
        rows = self.number(0x00280010)
        return max(1, self.number(0x00280008) or 1) if rows else 0


@dataclass(frozen=True, slots=True)
class StreamedStudy:
    """A study as its header document says it, instances in the document's order."""

    study_instance_uid: str
    instances: list[StreamedInstance]


def read_gzipped(content: bytes) -> StreamedStudy:
    """Read a compressed document. Raises ``InvalidInput``."""
    inflater = zlib.decompressobj(_GZIP)
    try:
        document = inflater.decompress(content, LARGEST_DOCUMENT)
    except zlib.error as error:
        raise InvalidInput(f"the study header is not gzip: {error}") from None
    if not inflater.eof:
        raise InvalidInput("the compressed study header is cut, or too long")
    return read_document(document)


def read_document(content: bytes) -> StreamedStudy:
    """Read a document. Raises ``InvalidInput``."""
    reader = _Reader()
    parse_xml(content, reader.start, reader.end, reader.text)
    if reader.study is None:
        raise InvalidInput("the study header document names no study")
    return StreamedStudy(reader.study, reader.instances)


@dataclass(slots=True)
class _Element:
    tag: int
    vr: str
    text: list[str] = field(default_factory=list)
    items: list[Attributes] = field(default_factory=list)


class _Reader:
    """The base comes before the instances; an instance begins as a copy of it."""

    def __init__(self) -> None:
        self.study: str | None = None
        self.instances: list[StreamedInstance] = []
        self._series = ""
        self._base: Attributes = {}
        self._in_base = self._done = False
        self._instance: dict[str, str] = {}
        self._data_sets: list[Attributes] = []
        self._elements: list[_Element] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if self._done:
            return
        if name == "Study":
            self.study = attributes.get("UID", "")
        elif name == "Series":
            self._series, self._base = attributes.get("UID", ""), {}
        elif name == "BaseInstance":
            self._in_base = True
        elif name == "Instance":
            self._instance = attributes
            self._data_sets.append(dict(self._base))
        elif name == "Item":
            if not self._elements:
                raise InvalidInput("Item stands outside of a sequence")
            self._data_sets.append({})
        elif name in ("Attribute", "EmptyAttribute", "ExcludedAttribute"):
            self._elements.append(_Element(_tag(attributes.get("Tag", "")), attributes.get("VR", "UN")))

    def text(self, text: str) -> None:
        if self._elements and not self._done:
            self._elements[-1].text.append(text)

    def end(self, name: str) -> None:
        if self._done:
            return
        if name == "Study":
            self._done = True  # the first one counts
        elif name == "BaseInstance":
            self._in_base = False
        elif name == "Instance":
            self._end_instance(self._data_sets.pop())
        elif name == "Item":
            self._elements[-1].items.append(self._data_sets.pop())
        elif name in ("Attribute", "EmptyAttribute", "ExcludedAttribute"):
            self._end_element(name, self._elements.pop())

    def _end_element(self, name: str, element: _Element) -> None:
        if not self._data_sets:
            raise InvalidInput(f"{name} stands outside of an instance")
        here = self._data_sets[-1]
        if name == "EmptyAttribute":
            here.pop(element.tag, None)
        elif name == "ExcludedAttribute":
            here[element.tag] = HeaderValue(element.vr)
        elif element.vr == "SQ":
            here[element.tag] = HeaderValue("SQ", items=tuple(element.items))
        else:
            here[element.tag] = HeaderValue(element.vr, value_of("".join(element.text)))

    def _end_instance(self, attributes: Attributes) -> None:
        if self._in_base:
            self._base = attributes
            return
        given = self._instance
        size = given.get("FileSize", "")
        self.instances.append(
            StreamedInstance(
                self._series,
                given.get("UID", ""),
                given.get("SopClassUID", ""),
                given.get("TransferSyntaxUID", EXPLICIT_VR_LITTLE_ENDIAN),
                value_of(given.get("SourceAETitle", "")),
                int(size) if size.isdecimal() and len(size) < _LONGEST_SIZE else 0,
                dict(sorted(attributes.items())),
            )
        )


def _tag(text: str) -> int:
    try:
        return int(text, 16) if len(text) == 8 else _keyword(text)
    except ValueError:
        raise InvalidInput(f"{text[:40]!r} is no tag") from None


def _keyword(text: str) -> int:
    tag = tag_for_keyword(text.removeprefix("$")) if text.startswith("$") else None
    if tag is None:
        raise ValueError(text)
    return tag
