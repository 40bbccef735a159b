"""The study header document: one XML with the header of every instance, each as its difference to its series' base."""

import zlib
from collections.abc import Iterable, Iterator, Sequence

from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.streaming.attribute_text import BINARY_VRS, HeaderAttribute, element_xml
from imaging_services.domain.streaming.instance_header import InstanceHeader, unpacked
from imaging_services.domain.streaming.text import attribute_xml, value_attribute

Member = tuple[InstanceLocation, InstanceHeader | bytes]
"""An instance with its header; a packed one is unpacked when its turn comes: all of a large study at once would take a
hundred times the memory."""

_GZIP = 16 + zlib.MAX_WBITS
_LEVEL = 5
_DECLARATION = '<?xml version="1.0" encoding="utf-8"?>'


def gzipped_document(study_instance_uid: str, members: Iterable[Member]) -> bytes:
    """The document, compressed; the same members always give the same bytes. Blocking: belongs in a worker thread."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    packed = [packer.compress(piece.encode()) for piece in document(study_instance_uid, members)]
    return b"".join([*packed, packer.flush()])


def document(study_instance_uid: str, members: Iterable[Member]) -> Iterator[str]:
    """The document in pieces, series and instances in the order given."""
    yield f'{_DECLARATION}<ClearCanvasStudyXml><Study UID="{attribute_xml(study_instance_uid)}">'
    series: dict[str, list[Member]] = {}
    for member in members:
        series.setdefault(member[0].series_instance_uid, []).append(member)
    for uid, instances in series.items():
        yield f'<Series UID="{attribute_xml(uid)}">'
        yield from _series(instances)
        yield "</Series>"
    yield "</Study></ClearCanvasStudyXml>"


def _series(instances: Sequence[Member]) -> Iterator[str]:
    base: dict[str, HeaderAttribute] = {}
    if len(instances) == 1:
        yield "<BaseInstance />"
    else:
        base = common(_header(instances[0]), _header(instances[1]))
        yield f'<BaseInstance><Instance UID="">{"".join(map(element_xml, base.values()))}</Instance></BaseInstance>'
    for member in instances:
        yield _instance(member[0], _header(member), base)


def _header(member: Member) -> InstanceHeader:
    header = member[1]
    return unpacked(header) if isinstance(header, bytes) else header


def common(first: InstanceHeader, second: InstanceHeader) -> dict[str, HeaderAttribute]:
    """What the first two instances of a series share. Binary values count as excluded."""
    others = {one[0]: one for one in second.attributes}
    base: dict[str, HeaderAttribute] = {}
    for one in first.attributes:
        tag, vr, _ = one
        other = others.get(tag)
        if other is not None and vr in BINARY_VRS and other[1] in BINARY_VRS:
            base[tag] = tag, vr, None
        elif one == other:
            base[tag] = one
    return base


def _instance(location: InstanceLocation, header: InstanceHeader, base: dict[str, HeaderAttribute]) -> str:
    source = f' SourceAETitle="{value_attribute(header.source_ae_title)}"' if header.source_ae_title else ""
    size = f' FileSize="{location.size}"' if location.size else ""
    opening = (
        f'<Instance UID="{attribute_xml(location.sop_instance_uid)}"'
        f' SopClassUID="{attribute_xml(location.sop_class_uid)}"'
        f' TransferSyntaxUID="{attribute_xml(location.transfer_syntax_uid)}"{source}{size}>'
    )
    return f"{opening}{''.join(_differences(header.attributes, base))}</Instance>"


def _differences(attributes: Sequence[HeaderAttribute], base: dict[str, HeaderAttribute]) -> list[str]:
    """Elements in ascending order of tags: what the instance has otherwise than the base, and what it lacks."""
    written: list[tuple[str, str]] = []
    shared = 0
    for one in attributes:
        tag, _, xml = one
        inherited = base.get(tag)
        if inherited is not None:
            shared += 1
            if inherited == one or (inherited[2] is None and xml is None):
                continue
        written.append((tag, element_xml(one)))
    if shared < len(base):
        here = {one[0] for one in attributes}
        lacking = [(tag, vr) for tag, vr, _ in base.values() if tag not in here]
        written += [(tag, f'<EmptyAttribute Tag="{tag}" VR="{vr}" />') for tag, vr in lacking]
        written.sort()
    return [xml for _, xml in written]
