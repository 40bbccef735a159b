"""Where an instance bends the Standard: told to who stores it by STOW-RS; the instance is stored as it is all the same.

Only the header's top-level elements are looked at, as they were scanned on the way in. The instances of a study have
most of their elements in common, so the verdict on an element is kept for the next one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from pydicom.datadict import keyword_for_tag

from imaging_services.domain.dicom.dictionary import implicit_vr
from imaging_services.domain.dicom.elements import SPECIFIC_CHARACTER_SET, Header, RawElement
from imaging_services.domain.ingest.heading import Heading
from imaging_services.domain.ingest.value_rules import broken_rule

MOST_FINDINGS = 32
"""Most findings that are told of one instance."""

# Modules that every composite IOD of patients has (PS3.3 sections C.7.1.1, C.7.2.1, C.7.3.1, C.12.1).
_TYPE_1 = (0x00080060,)
_TYPE_2 = (
    0x00080020, 0x00080030, 0x00080050, 0x00080090, 0x00100010, 0x00100020, 0x00100030, 0x00100040,
    0x00200010, 0x00200011, 0x00200013,
)  # fmt: skip
# The Image Pixel Description Macro (PS3.3 section C.7.6.3.3).
_TYPE_1_OF_IMAGES = (
    0x00280002, 0x00280004, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """An attribute that bends the Standard, and how, in at most 64 characters."""

    tag: int
    comment: str


_Wanted = dict[int, tuple[Finding, Finding | None]]


def _wanted(type_1: Iterable[int], type_2: Iterable[int]) -> _Wanted:
    """What is told of an attribute that is missing, and of one of type 1 that is empty."""
    wanted: _Wanted = {}
    for tag in type_1:
        name = keyword_for_tag(tag)
        wanted[tag] = Finding(tag, f"{name} is missing (type 1)"), Finding(tag, f"{name} is empty (type 1)")
    return wanted | {tag: (Finding(tag, f"{keyword_for_tag(tag)} is missing (type 2)"), None) for tag in type_2}


_WANTED = _wanted(_TYPE_1, _TYPE_2)
_WANTED_OF_IMAGES = _wanted(_TYPE_1 + _TYPE_1_OF_IMAGES, _TYPE_2)
_EMPTY = b" \x00"
_CACHED_LENGTH = 64
_MOST_VERDICTS = 16_384
_UNKNOWN = Finding(-1, "")


def findings(heading: Heading, size: int) -> list[Finding]:
    """What bends the Standard in an instance whose file has ``size`` bytes; at most ``MOST_FINDINGS``."""
    header = heading.header
    found = [*_of_the_whole(heading, size), *_missing(header)]
    _add_elements(found, header, explicit=not heading.encoding.implicit)
    return found[:MOST_FINDINGS]


def _add_elements(found: list[Finding], header: Header, *, explicit: bool) -> None:
    """One long loop, since it runs for every element of every instance."""
    character_set = (header.raw(SPECIFIC_CHARACTER_SET) or b"").strip(_EMPTY)
    verdicts = _verdicts(explicit, character_set)
    verdict_of = verdicts.get
    groups: dict[int, list[RawElement]] = {}
    last = -1
    for element in header.elements:
        if len(found) >= MOST_FINDINGS:
            return
        tag = element[0]
        if tag <= last:
            found.append(Finding(tag, "occurs twice" if tag == last else "not in ascending order of tags"))
        last = tag
        verdict = verdict_of(element, _UNKNOWN)
        if verdict is _UNKNOWN:
            verdict = _judged(element, explicit, character_set)
            if len(verdicts) < _MOST_VERDICTS and (element[2] is None or len(element[2]) <= _CACHED_LENGTH):
                verdicts[element] = verdict
        if verdict is not None:
            found.append(verdict)
        if not tag & 0xFFFF:
            groups = groups or _by_group(header.elements)
            found += _group_length(element, groups[tag >> 16], header, explicit=explicit)


@lru_cache(maxsize=8)
def _verdicts(explicit: bool, character_set: bytes) -> dict[RawElement, Finding | None]:
    """The verdicts on elements that have been seen, in data sets of this encoding and character set."""
    return {}


def _judged(element: RawElement, explicit: bool, character_set: bytes) -> Finding | None:
    tag, vr, raw = element
    known = implicit_vr(tag)
    if explicit and vr not in known.split(" or ") and known != "UN" and vr != "UN":
        return Finding(tag, f"VR {vr}, the Standard has {known}")
    if raw is None or vr in ("SQ", "UN"):
        return None
    rule = broken_rule(vr if " " not in vr else "US", raw, character_set)
    return None if rule is None else Finding(tag, rule)


def _missing(header: Header) -> Iterator[Finding]:
    raw = header.raw
    for tag, (missing, empty) in _WANTED_OF_IMAGES.items() if header.pixel_data is not None else _WANTED.items():
        value = raw(tag)
        if value is None:
            yield missing
        elif empty and not value.strip(b" "):
            yield empty


def _of_the_whole(heading: Heading, size: int) -> Iterator[Finding]:
    header = heading.header
    if header.truncated and header.elements:
        yield Finding(header.elements[-1][0], "the data set ends within the element after this one")
    end = header.pixel_data_end
    if end is not None and not heading.encoding.deflated and end > size - len(heading.meta):
        yield Finding(0x7FE00010, "shorter than its length says")


def _by_group(elements: Iterable[RawElement]) -> dict[int, list[RawElement]]:
    """The elements of each group without the group's length."""
    groups: dict[int, list[RawElement]] = {}
    for element in elements:
        members = groups.setdefault(element[0] >> 16, [])
        if element[0] & 0xFFFF:
            members.append(element)
    return groups


def _group_length(
    element: RawElement, members: list[RawElement], header: Header, *, explicit: bool
) -> Iterator[Finding]:
    """Whether a group length (retired, PS3.5 section 7.2) is right, where that can be told from what is at hand."""
    tag, _, raw = element
    length = _encoded_length(members, explicit=explicit)
    told = None if raw is None else int.from_bytes(raw, "little" if header.little_endian else "big")
    if length is not None and told is not None and told != length:
        yield Finding(tag, f"group length is wrong, it is {length}")


def _encoded_length(elements: list[RawElement], *, explicit: bool) -> int | None:
    """Bytes of the elements; None when a value or the form of its length is not known."""
    total = 0
    for _, vr, raw in elements:
        if raw is None or vr in ("SQ", "UN"):
            return None
        long = explicit and vr in ("OB", "OD", "OF", "OL", "OV", "OW", "SV", "UC", "UR", "UT", "UV")
        total += len(raw) + (12 if long else 8)
    return total
