"""A-ASSOCIATE-RQ and A-ASSOCIATE-AC (PS3.8 sections 9.3.2 and 9.3.3, user items of annex D)."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from imaging_services.adapters.dimse.pdu import PDU_HEADER, AbortReason, PduType, ProtocolViolation
from imaging_services.domain.dicom.dimse import AcceptedContext, ProposedContext
from imaging_services.domain.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
MAX_AE_TITLE = 16

_FIXED = struct.Struct(">HH16s16s32s")
_ITEM = struct.Struct(">BxH")
_CONTEXT_ITEM = 4

_APPLICATION_CONTEXT_ITEM = 0x10
_PROPOSED_CONTEXT_ITEM = 0x20
_ANSWERED_CONTEXT_ITEM = 0x21
_ABSTRACT_SYNTAX_ITEM = 0x30
_TRANSFER_SYNTAX_ITEM = 0x40
_USER_INFORMATION_ITEM = 0x50
_MAXIMUM_LENGTH_ITEM = 0x51
_IMPLEMENTATION_CLASS_ITEM = 0x52
_IMPLEMENTATION_VERSION_ITEM = 0x55

ACCEPTANCE = 0
ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ. ``max_pdu_length`` 0 is unlimited; AE titles come without their padding."""

    calling_ae_title: str
    called_ae_title: str
    contexts: tuple[ProposedContext, ...]
    max_pdu_length: int = 0
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1
    implementation: str = ""


@dataclass(frozen=True, slots=True)
class AnsweredContext:
    """A presentation context item of an A-ASSOCIATE-AC; the transfer syntax counts only with result 0."""

    context_id: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    """An A-ASSOCIATE-AC."""

    contexts: tuple[AnsweredContext, ...]
    max_pdu_length: int = 0
    implementation: str = ""


def decode_request(body: bytes) -> AssociateRequest:
    """Parse the body of an A-ASSOCIATE-RQ; unknown items and sub-items are skipped (PS3.8 section 9.3.1)."""
    version, called, calling, items = _decode_fixed(body)
    contexts: dict[int, ProposedContext] = {}
    application_context, max_pdu_length, implementation = "", 0, ""
    for kind, value in items:
        if kind == _APPLICATION_CONTEXT_ITEM:
            application_context = _uid(value)
        elif kind == _PROPOSED_CONTEXT_ITEM:
            context = _decode_proposed(value)
            if context.context_id in contexts:
                raise _invalid(f"presentation context id {context.context_id} twice")
            contexts[context.context_id] = context
        elif kind == _USER_INFORMATION_ITEM:
            max_pdu_length, implementation = _decode_user_information(value)
    return AssociateRequest(
        calling_ae_title=calling,
        called_ae_title=called,
        contexts=tuple(contexts.values()),
        max_pdu_length=max_pdu_length,
        application_context=application_context,
        protocol_version=version,
        implementation=implementation,
    )


def decode_accept(body: bytes) -> AssociateAccept:
    """Parse the body of an A-ASSOCIATE-AC."""
    _, _, _, items = _decode_fixed(body)
    contexts: list[AnsweredContext] = []
    max_pdu_length, implementation = 0, ""
    for kind, value in items:
        if kind == _ANSWERED_CONTEXT_ITEM:
            contexts.append(_decode_answered(value))
        elif kind == _USER_INFORMATION_ITEM:
            max_pdu_length, implementation = _decode_user_information(value)
    return AssociateAccept(tuple(contexts), max_pdu_length, implementation)


def encode_request(
    calling_ae_title: str, called_ae_title: str, contexts: Sequence[ProposedContext], max_pdu_length: int
) -> bytes:
    """An A-ASSOCIATE-RQ that announces ``max_pdu_length``."""
    items = [_item(_APPLICATION_CONTEXT_ITEM, APPLICATION_CONTEXT.encode("ascii"))]
    for context in contexts:
        syntaxes = b"".join(_item(_TRANSFER_SYNTAX_ITEM, uid.encode("ascii")) for uid in context.transfer_syntaxes)
        abstract = _item(_ABSTRACT_SYNTAX_ITEM, context.abstract_syntax.encode("ascii"))
        items.append(_item(_PROPOSED_CONTEXT_ITEM, bytes((context.context_id, 0, 0, 0)) + abstract + syntaxes))
    return _encode(PduType.A_ASSOCIATE_RQ, calling_ae_title, called_ae_title, items, max_pdu_length)


def encode_accept(
    request: AssociateRequest,
    accepted: Mapping[int, AcceptedContext],
    refusals: Mapping[int, int],
    max_pdu_length: int,
) -> bytes:
    """The A-ASSOCIATE-AC of a request: its AE titles again, and a result for each of its contexts."""
    items = [_item(_APPLICATION_CONTEXT_ITEM, APPLICATION_CONTEXT.encode("ascii"))]
    for context in request.contexts:
        answer = accepted.get(context.context_id)
        result = ACCEPTANCE if answer else refusals.get(context.context_id, ABSTRACT_SYNTAX_NOT_SUPPORTED)
        # not significant when refused, but the item must be there: one of those proposed
        syntax = answer.transfer_syntax if answer else next(iter(context.transfer_syntaxes), "")
        value = bytes((context.context_id, 0, result, 0)) + _item(_TRANSFER_SYNTAX_ITEM, syntax.encode("ascii"))
        items.append(_item(_ANSWERED_CONTEXT_ITEM, value))
    return _encode(PduType.A_ASSOCIATE_AC, request.calling_ae_title, request.called_ae_title, items, max_pdu_length)


def _encode(kind: PduType, calling: str, called: str, items: list[bytes], max_pdu_length: int) -> bytes:
    user = (
        _item(_MAXIMUM_LENGTH_ITEM, max_pdu_length.to_bytes(4, "big"))
        + _item(_IMPLEMENTATION_CLASS_ITEM, IMPLEMENTATION_CLASS_UID.encode("ascii"))
        + _item(_IMPLEMENTATION_VERSION_ITEM, IMPLEMENTATION_VERSION_NAME.encode("ascii"))
    )
    body = b"".join(
        (
            _FIXED.pack(1, 0, _ae_title(called), _ae_title(calling), bytes(32)),
            *items,
            _item(_USER_INFORMATION_ITEM, user),
        )
    )
    return PDU_HEADER.pack(kind, len(body)) + body


def _decode_fixed(body: bytes) -> tuple[int, str, str, Iterator[tuple[int, bytes]]]:
    if len(body) < _FIXED.size:
        raise _invalid(f"association PDU of {len(body)} bytes is too short")
    version, _, called, calling, _ = _FIXED.unpack_from(body)
    return version, _text(called), _text(calling), _items(body[_FIXED.size :])


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    pos = 0
    while pos < len(data):
        if pos + _ITEM.size > len(data):
            raise _invalid("item header is cut short")
        kind, length = _ITEM.unpack_from(data, pos)
        pos += _ITEM.size
        if pos + length > len(data):
            raise _invalid(f"item {kind:02X}H of {length} bytes goes beyond its end")
        yield kind, data[pos : pos + length]
        pos += length


def _decode_proposed(value: bytes) -> ProposedContext:
    context_id = _context_id(value)
    abstract, syntaxes = "", []
    for kind, item in _items(value[_CONTEXT_ITEM:]):
        if kind == _ABSTRACT_SYNTAX_ITEM:
            abstract = _uid(item)
        elif kind == _TRANSFER_SYNTAX_ITEM:
            syntaxes.append(_uid(item))
    if not abstract or not syntaxes:
        raise _invalid(f"presentation context {context_id} lacks an abstract or transfer syntax")
    return ProposedContext(context_id, abstract, tuple(syntaxes))


def _decode_answered(value: bytes) -> AnsweredContext:
    context_id = _context_id(value)
    syntax = next((_uid(item) for kind, item in _items(value[_CONTEXT_ITEM:]) if kind == _TRANSFER_SYNTAX_ITEM), "")
    if value[2] == ACCEPTANCE and not syntax:
        raise _invalid(f"accepted presentation context {context_id} lacks a transfer syntax")
    return AnsweredContext(context_id, value[2], syntax)


def _context_id(value: bytes) -> int:
    if len(value) < _CONTEXT_ITEM:
        raise _invalid("presentation context item is too short")
    if value[0] % 2 == 0:
        raise _invalid(f"presentation context id {value[0]} is not odd")
    return value[0]


def _decode_user_information(value: bytes) -> tuple[int, str]:
    max_pdu_length, implementation = 0, ""
    for kind, item in _items(value):
        if kind == _MAXIMUM_LENGTH_ITEM:
            if len(item) != 4:
                raise _invalid("maximum length item is not 4 bytes")
            max_pdu_length = int.from_bytes(item, "big")
        elif kind == _IMPLEMENTATION_VERSION_ITEM:
            implementation = _text(item)
    return max_pdu_length, implementation


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _ae_title(title: str) -> bytes:
    return title.encode("latin-1", "replace")[:MAX_AE_TITLE].ljust(MAX_AE_TITLE)


def _uid(value: bytes) -> str:
    # peers pad with NUL or space although PS3.8 annex F says they shall not
    try:
        return value.strip(b"\0 ").decode("ascii")
    except UnicodeDecodeError:
        raise _invalid("UID is not ASCII") from None


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip("\0 ")


def _invalid(why: str) -> ProtocolViolation:
    return ProtocolViolation(AbortReason.INVALID_PARAMETER, why)
