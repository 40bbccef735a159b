"""The multipart parser: any cut of the bytes gives the same parts, and malformed bodies are refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging_services.domain.dicom.multipart import MultipartParser, PartEnd, PartStart
from imaging_services.domain.errors import InvalidInput

BOUNDARY = "b.1"


def parse(pieces: list[bytes], boundary: str = BOUNDARY) -> list[tuple[dict[str, str], bytes]]:
    parser = MultipartParser(boundary)
    found: list[tuple[dict[str, str], bytes]] = []
    open_part = False
    for piece in pieces:
        for event in parser.feed(piece):
            if isinstance(event, PartStart):
                assert not open_part
                found.append((event.headers, b""))
                open_part = True
            elif isinstance(event, PartEnd):
                assert open_part
                open_part = False
            else:
                assert open_part
                found[-1] = (found[-1][0], found[-1][1] + event)
    parser.close()
    assert not open_part
    return found


def body(parts: list[bytes], end: bytes = b"\r\n", preamble: bytes = b"", epilogue: bytes = b"") -> bytes:
    mark = b"--" + BOUNDARY.encode()
    head = b"Content-Type: application/dicom" + end + end
    return preamble + b"".join(mark + end + head + part + end for part in parts) + mark + b"--" + epilogue


# Bytes that look like boundaries, more often than chance would make them.
_TRICKY = st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"--", b"b.1", b"\r\n--b.", b"\r\n--", b"\r\n\r\n", b"x", b"\0", b"--b.1x"])
    | st.binary(max_size=8),
    max_size=12,
).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(_TRICKY, min_size=1, max_size=4),
    st.sampled_from([b"", b"preamble\r\n", b"\r\n"]),
    st.sampled_from([b"", b"\r\n", b"\r\nepilogue --b.1\r\n--b.1\r\n\r\nno part"]),
    st.data(),
)
def test_any_cut_of_the_bytes_gives_the_same_parts(
    parts: list[bytes], preamble: bytes, epilogue: bytes, data: st.DataObject
) -> None:
    # A part may not hold the delimiter followed by what ends its line: then the sender would have chosen another.
    parts = [part for part in parts if b"--b.1" not in part] or [b""]
    whole = body(parts, preamble=preamble, epilogue=epilogue)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    expected = [({"content-type": "application/dicom"}, part) for part in parts]
    assert parse([whole]) == expected
    assert parse(pieces) == expected
    assert parse([whole[i : i + 1] for i in range(len(whole))]) == expected


def test_lines_may_end_with_lf_alone() -> None:
    assert parse([body([b"one\r", b"two\n"], end=b"\n")]) == [
        ({"content-type": "application/dicom"}, b"one\r"),
        ({"content-type": "application/dicom"}, b"two\n"),
    ]


def test_a_boundary_that_goes_on_is_data() -> None:
    data = b"x\r\n--b.1y\r\n--b.1 z\r\n--b.1-"
    assert parse([body([data])]) == [({"content-type": "application/dicom"}, data)]


def test_white_space_after_a_boundary_is_padding() -> None:
    whole = b"--b.1 \t\r\n\r\ndata\r\n--b.1-- \t"
    assert parse([whole]) == [({}, b"data")]


def test_headers_are_folded_and_case_insensitive() -> None:
    whole = b"--b.1\r\nCONTENT-type: application/dicom;\r\n  transfer-syntax=1.2\r\nbroken line\r\n\r\n\r\n--b.1--"
    assert parse([whole]) == [({"content-type": "application/dicom; transfer-syntax=1.2"}, b"")]


def test_a_part_without_data_needs_no_line_break() -> None:
    assert parse([b"--b.1\r\nA: b\r\n\r\n--b.1\r\n\r\nx\r\n--b.1--"]) == [({"a": "b"}, b""), ({}, b"x")]


@pytest.mark.parametrize("length", range(1, len(body([b"data", b"more"])) - 1))
def test_a_cut_body_is_malformed(length: int) -> None:
    with pytest.raises(InvalidInput, match="malformed"):
        parse([body([b"data", b"more"])[:length]])


def test_a_body_without_parts_is_malformed() -> None:
    for whole in (b"", b"nothing of the kind", b"--other\r\n\r\nx\r\n--other--"):
        with pytest.raises(InvalidInput, match="no part"):
            parse([whole])


def test_headers_without_end_are_refused_early() -> None:
    parser = MultipartParser(BOUNDARY)
    parser.feed(b"--b.1\r\n")
    for _ in range(16):
        parser.feed(b"X-Header: " + b"x" * 1000 + b"\r\n")
    with pytest.raises(InvalidInput, match="headers"):
        parser.feed(b"X-Header: " + b"x" * 1000 + b"\r\n")


def test_memory_does_not_grow_with_the_body() -> None:
    parser = MultipartParser(BOUNDARY)
    parser.feed(b"--b.1\r\n\r\n")
    for _ in range(100):
        parser.feed(b"\r\n--b.0" * 10_000)
        assert len(parser._buffer) < 100


@pytest.mark.parametrize("boundary", ["", "x" * 201, "ä"])
def test_impossible_boundaries_are_refused(boundary: str) -> None:
    with pytest.raises(InvalidInput, match="boundary"):
        MultipartParser(boundary)
