"""A-ASSOCIATE PDUs: encoding agrees with pynetdicom's, parsing is strict on lengths and skips what it does not know."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ

from imaging_services.adapters.dimse.associate import (
    AnsweredContext,
    decode_accept,
    decode_request,
    encode_accept,
    encode_request,
)
from imaging_services.adapters.dimse.pdu import AbortReason, ProtocolViolation
from imaging_services.adapters.dimse.user_information import UserInformation
from imaging_services.domain.dicom.dimse import AcceptedContext, ProposedContext
from support.dimse import CT, EXPLICIT, IMPLICIT, MR

CONTEXTS = (ProposedContext(1, CT, (EXPLICIT, IMPLICIT)), ProposedContext(3, MR, (IMPLICIT,)))
REQUEST = encode_request("SCU", "ARCHIVE", CONTEXTS, UserInformation(65536))


def item(kind: int, value: bytes) -> bytes:
    return bytes((kind, 0)) + len(value).to_bytes(2, "big") + value


def test_request_comes_back() -> None:
    request = decode_request(REQUEST[6:])
    assert request.calling_ae_title == "SCU"
    assert request.called_ae_title == "ARCHIVE"
    assert request.contexts == CONTEXTS
    assert request.user.max_pdu_length == 65536
    assert request.application_context == "1.2.840.10008.3.1.1.1"


def test_pynetdicom_reads_our_request_and_accept() -> None:
    theirs = A_ASSOCIATE_RQ()
    theirs.decode(REQUEST)
    assert [c.abstract_syntax for c in theirs.presentation_context] == [CT, MR]
    accept = A_ASSOCIATE_AC()
    accept.decode(
        encode_accept(decode_request(REQUEST[6:]), {1: AcceptedContext(1, CT, EXPLICIT)}, {3: 4}, UserInformation(4096))
    )
    assert [(c.context_id, c.result) for c in accept.presentation_context] == [(1, 0), (3, 4)]
    assert accept.user_information.maximum_length == 4096


def test_accept_comes_back() -> None:
    encoded = encode_accept(
        decode_request(REQUEST[6:]), {3: AcceptedContext(3, MR, IMPLICIT)}, {}, UserInformation(100000)
    )
    accept = decode_accept(encoded[6:])
    assert accept.contexts == (AnsweredContext(1, 3, EXPLICIT), AnsweredContext(3, 0, IMPLICIT))
    assert accept.user.max_pdu_length == 100000


def test_unknown_items_and_sub_items_are_skipped() -> None:
    user_identity = item(0x58, b"\x01\x01\x00\x04anna\x00\x00")
    extra = item(0x99, b"what") + item(0x50, item(0x51, (1000).to_bytes(4, "big")) + user_identity + item(0x77, b""))
    assert decode_request(REQUEST[6:] + extra).user.max_pdu_length == 1000


@pytest.mark.parametrize(
    "tail",
    [
        b"\x20\x00\x00",
        b"\x20\x00\x00\x50\x01",
        item(0x20, b"\x01"),
        item(0x20, bytes((2, 0, 0, 0)) + item(0x30, b"1.2") + item(0x40, b"1.2")),
        item(0x20, bytes((1, 0, 0, 0)) + item(0x30, b"1.2") + item(0x40, b"1.2")),
        item(0x20, bytes((5, 0, 0, 0)) + item(0x30, b"1.2")),
        item(0x20, bytes((5, 0, 0, 0)) + item(0x30, b"\xff\xfe") + item(0x40, b"1.2")),
        item(0x50, item(0x51, b"\x00\x00")),
    ],
    ids=["header", "length", "short", "even id", "id twice", "no transfer syntax", "not ascii", "max length"],
)
def test_broken_items_are_invalid_parameters(tail: bytes) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        decode_request(REQUEST[6:] + tail)
    assert caught.value.reason is AbortReason.INVALID_PARAMETER


def test_padded_uids_are_accepted() -> None:
    context = item(0x20, bytes((9, 0, 0, 0)) + item(0x30, CT.encode() + b"\0") + item(0x40, IMPLICIT.encode() + b" "))
    assert decode_request(REQUEST[6:] + context).contexts[-1] == ProposedContext(9, CT, (IMPLICIT,))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(REQUEST) - 6))
def test_any_bytes_parse_or_are_a_violation(noise: bytes, cut: int) -> None:
    for body in (noise, REQUEST[6 : 6 + cut] + noise):
        try:
            request = decode_request(body)
        except ProtocolViolation:
            continue
        assert all(context.context_id % 2 for context in request.contexts)
