"""Messages of the relay: what goes in comes out, and broken ones are refused."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging_services.domain.dicom.command_set import CommandSet, store_request
from imaging_services.domain.dicom.dimse import AssociationRequest, Negotiated, ProposedContext, Rejection, Role
from imaging_services.domain.errors import (
    DataSetMismatch,
    InvalidInput,
    RetryableError,
    SettingsError,
)
from imaging_services.domain.relay.messages import (
    AssociationNotice,
    AssociationState,
    Call,
    Origin,
    StoreMessage,
    error_from,
)
from imaging_services.domain.relay.negotiation import decode_outcome, decode_request, encode_outcome, encode_request
from imaging_services.domain.relay.subjects import RelaySubjects, other_channel

TITLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=16)


@given(TITLE, TITLE, st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), min_size=1, max_size=64))
def test_store_message_survives_its_headers(calling, called, instance):
    command = store_request("1.2.840.10008.5.1.4.1.1.2", instance, message_id=65535, priority=2)
    command = CommandSet.decode(CommandSet({**command.elements, 0x5555: b"\x01\x02"}).encode())
    call = Call(Origin("abc", calling, called), "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", command)
    for name, urgent, encoding in ((None, False, None), ("0123-abc", True, "zstd")):
        message = StoreMessage(call, "abc.1", 5, "00" * 32, name, urgent=urgent, encoding=encoding)
        headers = message.headers()
        assert all(value.isascii() and value.isprintable() for value in headers.values())
        assert StoreMessage.from_headers(headers) == message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Imaging-Version", "2"),
        ("Imaging-Version", None),
        ("Imaging-Command", "###"),
        ("Imaging-Command", base64.b64encode(b"short").decode()),
        ("Imaging-Command", None),
        ("Imaging-Size", "many"),
        ("Imaging-Digest", None),
        ("Imaging-Association", None),
    ],
)
def test_broken_store_messages_are_refused(name, value):
    call = Call(Origin("a", "b", "c"), "1.2", "1.3", store_request("1.2", "1.4"))
    headers = StoreMessage(call, "abc.1", 5, "00" * 32).headers()
    if value is None:
        del headers[name]
    else:
        headers[name] = value
    with pytest.raises(InvalidInput):
        StoreMessage.from_headers(headers)


def test_notices():
    notice = AssociationNotice(Origin("a", "b", "c"), AssociationState.RENEWED, 60)
    assert AssociationNotice.from_headers(notice.headers()) == notice
    for name, value in (("Imaging-State", "asleep"), ("Imaging-Lease-Seconds", "long")):
        with pytest.raises(InvalidInput):
            AssociationNotice.from_headers({**notice.headers(), name: value})


@pytest.mark.parametrize(
    "outcome",
    [
        Negotiated({1: "1.2.840.10008.1.2"}, {3: 4}, {"1.2": Role(scu=True, scp=False)}, {"1.5": b"\1\0"}),
        Negotiated(),
        Rejection(1, 1, 7, "not known"),
    ],
)
def test_negotiation_outcomes(outcome):
    assert decode_outcome(encode_outcome(outcome)) == outcome


def test_negotiation_requests():
    contexts = (ProposedContext(1, "1.2", ("1.3", "1.4")), ProposedContext(3, "1.5", ("1.3",), ("1.2",)))
    roles = {"1.2": Role(scu=False, scp=True)}
    request = AssociationRequest("id", "CALLING", "CÄLLED", contexts, 16384, "10.0.0.1:104", roles, {"1.5": b"\1"})
    assert decode_request(encode_request(request)) == request


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"accepted": 3}', b'{"rejection": [1]}', b"\xff"])
def test_broken_negotiations_are_refused(data):
    for decode in (decode_request, decode_outcome):
        with pytest.raises(InvalidInput):
            decode(data)


def test_errors_keep_their_type():
    assert isinstance(error_from("DataSetMismatch", "no"), DataSetMismatch)
    assert isinstance(error_from("OfAnotherVersion", "no"), RetryableError)


def test_subjects():
    names = RelaySubjects("hospital.one", "B")
    assert names.store("f3") == "hospital.one.B.store.f3"
    assert names.store("f3", "0-a") == "hospital.one.B.store.f3.0-a"
    assert names.end("a.*>b c") == "hospital.one.B.end.a___b_c"
    assert names.queued == ["hospital.one.B.store.*", "hospital.one.B.store.*.*", "hospital.one.B.end.*"]
    assert names.confirm == "hospital.one.B.confirm"
    assert names.stream.startswith("hospital-one-")
    assert names.stream.endswith("-B-store")
    assert names.stream != RelaySubjects("hospital-one", "B").stream == "hospital-one-B-store"
    assert other_channel("A") == "B"
    for root, channel in (("", "A"), ("a..b", "A"), ("a b", "A"), ("a.>", "A"), ("a", "C")):
        with pytest.raises(SettingsError):
            RelaySubjects(root, channel)


@pytest.mark.parametrize("takes", [None, (), (("1.2", "1.2.1"), ("1.2", "1.2.2"), ("1.3", "1.2.1"))])
def test_what_the_requestor_of_a_c_get_takes_is_said(takes):
    call = Call(Origin("a", "b", "c"), "1.2", "1.3", store_request("1.2", "1.4"), takes=takes)
    assert Call.from_headers(call.headers()) == call


@pytest.mark.parametrize("text", ["", "[]", '{"1.2": 3}', "{"])
def test_a_broken_list_of_what_it_takes_is_refused(text):
    call = Call(Origin("a", "b", "c"), "1.2", "1.3", store_request("1.2", "1.4"), takes=())
    with pytest.raises(InvalidInput, match="Imaging-Takes"):
        Call.from_headers(call.headers() | {"Imaging-Takes": text})


def test_elements_of_other_groups_in_a_command_set_are_left_out():
    """Orthanc puts the Failed SOP Instance UID List (0008,0058) into responses of C-GET."""
    command = store_request("1.2", "1.4").response(0xB000)
    strange = bytes.fromhex("08005800 04000000 312e3200")
    assert CommandSet.decode(command.encode() + strange) == CommandSet.decode(command.encode())
