"""A document is read the same whether its elements are remembered pieces of text or it is parsed whole."""

import random
from typing import Any

import orjson
import pytest

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.envelope import (
    DICOM_AVAILABLE,
    IMAGE_DELETED,
    IMAGE_STORED,
    STUDY_REVISION,
    CloudEvent,
)
from imaging_services.domain.manifest.header_elements import header_elements
from imaging_services.domain.manifest.header_text import cut_document
from imaging_services.domain.manifest.recording import read_event
from support.manifest_events import stored

PLAIN = {"group": "0008", "element": "0060", "vr": "CS", "value": "CT"}
NAME = {"group": "0010", "element": "0010", "vr": "PN", "value": 'A},{"group":"0010"}]},"store":^B'}
IDENTIFIER = {"group": "0020", "element": "000D", "vr": "UI", "value": "1.2.3"}
LIST = {"group": "0008", "element": "0008", "vr": "CS", "value": "ORIGINAL", "values": ["ORIGINAL", "PRIMARY", "A]]"]}
UNKNOWN = {"group": "0009", "element": "1001", "vr": "LO", "value": "private"}
EMPTY = {"group": "0010", "element": "0020", "vr": "LO", "value": None}
STEP = {"group": "0040", "element": "0009", "vr": "SH", "value": "S1"}
REQUESTED = {"group": "0040", "element": "1001", "vr": "SH", "value": "R1"}
LONG = {"group": "0008", "element": "1030", "vr": "LO", "value": "x" * 2000}


def sequence(*items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"group": "0040", "element": "0275", "vr": "SQ", "value": None, "items": list(items)}


def document(*elements: object, **more: object) -> dict[str, Any]:
    image = {"transferSyntaxUID": "1.2.840.10008.1.2.1", "elements": list(elements)}
    return {"image": image, "store": {"provider": "north", "objectName": "a.dcm"}, **more}


def both(content: dict[str, Any]) -> tuple[Any, Any]:
    cut = cut_document(orjson.dumps(content))
    assert cut is not None
    whole = header_elements(content["image"]["elements"])
    return tuple((header.identifiers, header.study, header.series, header.instance) for header in (cut[1], whole))  # type: ignore[return-value]


@pytest.mark.parametrize(
    "elements",
    [
        (PLAIN,),
        (PLAIN, NAME, IDENTIFIER, LIST, UNKNOWN, EMPTY, LONG),
        (sequence([STEP, REQUESTED]),),
        (PLAIN, sequence([STEP, REQUESTED], [REQUESTED]), IDENTIFIER),
        (sequence([STEP]), sequence([REQUESTED])),
        (PLAIN, sequence([STEP | {"value": 'a]]},{"group":"b'}]), NAME),
        (PLAIN, PLAIN | {"value": "MR"}),
        (PLAIN, sequence([], [STEP])),
    ],
    ids=["one", "all kinds", "sequence", "between", "two sequences", "odd text", "twice", "empty item"],
)
def test_pieces_say_what_the_document_says(elements: tuple[dict[str, Any], ...]) -> None:
    for _ in range(2):  # the second time from memory
        pieces, whole = both(document(*elements))
        assert pieces == whole
    assert any(whole)


def test_what_the_headers_of_a_series_have_in_common_is_read_the_same() -> None:
    """Elements that come and go, in other places, within items too, among some that stay."""
    chosen = random.Random(7)
    series = {"group": "0020", "element": "000E", "vr": "UI", "value": "1.2.3.4"}
    stays = [{"group": "0008", "element": f"10{number:02}", "vr": "LO", "value": "stays"} for number in range(20)]
    others = [PLAIN, NAME, LIST, UNKNOWN, EMPTY, STEP, REQUESTED, LONG, sequence([STEP, REQUESTED], stays[3:9])]
    for _ in range(300):
        elements = [*stays[chosen.randrange(4) :], series, IDENTIFIER, *stays[: chosen.randrange(20)]]
        for one in chosen.sample(others, chosen.randrange(5)):
            value = chosen.choice([one.get("value"), "1", "2"])
            elements.insert(chosen.randrange(len(elements) + 1), one | {"value": value})
        pieces, whole = both(document(*elements))
        assert pieces == whole
        assert [*map(list, pieces[1:])] == [*map(list, whole[1:])]  # in their order


@pytest.mark.parametrize("piece", [b"", b"0", b"{", b'"', b","], ids=repr)
def test_what_stands_between_known_stretches_is_read_too(piece: bytes) -> None:
    """A document that is broken there is not taken for what its series has been so far."""
    series = {"group": "0020", "element": "000E", "vr": "UI", "value": "1.2.3.5"}
    stays = [*({"group": "0008", "element": f"10{n:02}", "vr": "LO", "value": "stays"} for n in range(4)), series]
    first, second, third = (
        orjson.dumps(document(PLAIN | {"value": one}, *stays, IDENTIFIER)) for one in ("CT", "MR", "XA")
    )
    separator = b'},{"group":"'
    start = third.index(separator + b'0008","element":"1000"')
    changed = [third[:place] + piece + third[place + 1 :] for place in range(start, start + len(separator))]
    for broken in filter(_is_no_json, changed):
        assert cut_document(first)
        assert cut_document(second)
        assert cut_document(broken) is None
    renamed = third.replace(separator + b'0008","element":"1000"', b',"another":"0008","element":"1000"')
    assert cut_document(first)
    assert cut_document(second)
    cut = cut_document(renamed)
    assert cut is None or "00080060" not in cut[1].series  # the object's later `element` holds


def test_the_rest_of_the_document_stays() -> None:
    cut = cut_document(orjson.dumps(document(PLAIN, IDENTIFIER)))
    assert cut is not None
    assert cut[0]["store"] == {"provider": "north", "objectName": "a.dcm"}
    assert cut[0]["image"]["transferSyntaxUID"] == "1.2.840.10008.1.2.1"


@pytest.mark.parametrize(
    "data",
    [
        orjson.dumps(document()),
        orjson.dumps(document(PLAIN), option=orjson.OPT_INDENT_2),
        orjson.dumps({"other": {"elements": [PLAIN]}, **document(PLAIN)}),
        orjson.dumps(document(PLAIN)).replace(b'"elements":', b'"elements":[],"other\\"elements":'),
        orjson.dumps(document(PLAIN))[:-2],
        orjson.dumps(document(PLAIN))[:-1] + b',"image":{"elements":[1]}}',
        orjson.dumps(document(PLAIN))[:-1] + b',"image":7}',
        orjson.dumps(document(PLAIN, IDENTIFIER)).replace(b'"vr":"CS"', b'"vr":CS'),
        b'{"image":{"elements":[{"group":"0008"}],"x":1},"store":{}}',
        b"",
    ],
    ids=[
        "no elements",
        "indented",
        "others before",
        "in a name",
        "cut off",
        "twice",
        "twice, a number",
        "broken",
        "behind",
        "none",
    ],
)
def test_other_spellings_are_left_to_the_parser(data: bytes) -> None:
    assert cut_document(data) is None


@pytest.mark.parametrize("element", [{"group": "0008"}, PLAIN | {"value": 7}, sequence() | {"items": [[1]]}, 7])
def test_what_is_no_element_is_refused(element: object) -> None:
    with pytest.raises(InvalidInput):
        header_elements([element])


def test_what_is_no_element_is_refused_among_pieces() -> None:
    with pytest.raises(InvalidInput):
        cut_document(orjson.dumps(document(PLAIN, PLAIN | {"value": 7})))


@pytest.mark.parametrize("piece", [b"", b'"', b"{", b"}", b"]", b",", b":", b"\\", b"\xff", b"\n"], ids=repr)
def test_a_document_that_is_no_json_is_refused_wherever_it_is_broken(piece: bytes) -> None:
    """The processor's NATS ingress leaves it to the reading of an event to find that out."""
    whole = orjson.dumps(orjson.loads(stored("1.2", "1.3", "1.4", attributes={"00100010": "Näme^A"}).data))
    assert cut_document(whole) is not None
    broken = [whole[:place] + piece + whole[place + 1 :] for place in range(len(whole))]
    refused = 0
    for data in filter(_is_no_json, [*broken, whole[:-1], whole + piece[:1]]):
        with pytest.raises(InvalidInput):
            read_event(CloudEvent(IMAGE_STORED, "s", "i", data))
        refused += 1
    assert refused > 100


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("event_type", [DICOM_AVAILABLE, IMAGE_DELETED, STUDY_REVISION])
def test_numbers_that_json_does_not_have_are_refused_in_every_document(event_type: str, number: str) -> None:
    """Whoever reads the event log would refuse them."""
    instance = {"seriesInstanceUID": "1.3", "sopInstanceUID": "1.4", "objectName": "o"}
    study = {"studyInstanceUID": "1.2"}
    document = {"provider": "p", "endpoint": "e", "study": study, **study, "instances": [instance]}
    data = orjson.dumps(document)
    read_event(CloudEvent(event_type, "s", "i", data))
    with pytest.raises(InvalidInput, match="not JSON"):
        read_event(CloudEvent(event_type, "s", "i", data[:-1] + b',"more":%s}' % number.encode()))


def _is_no_json(data: bytes) -> bool:
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return True
    return False
