"""A-ASSOCIATE-RQ and A-ASSOCIATE-AC (PS3.8 sections 9.3.2 and 9.3.3, user items of annex D)."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from imaging_services.adapters.dimse.items import invalid, item, items, text, uid_text
from imaging_services.adapters.dimse.pdu import PDU_HEADER, PduType
from imaging_services.adapters.dimse.user_information import (
    UserInformation,
    decode_user_information,
    encode_user_information,
)
from imaging_services.domain.dicom.dimse import AcceptedContext, ProposedContext

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
MAX_AE_TITLE = 16

_FIXED = struct.Struct(">HH16s16s32s")
_CONTEXT_ITEM = 4

_APPLICATION_CONTEXT_ITEM = 0x10
_PROPOSED_CONTEXT_ITEM = 0x20
_ANSWERED_CONTEXT_ITEM = 0x21
_ABSTRACT_SYNTAX_ITEM = 0x30
_TRANSFER_SYNTAX_ITEM = 0x40
_USER_INFORMATION_ITEM = 0x50

ACCEPTANCE = 0
ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ; AE titles come without their padding."""

    calling_ae_title: str
    called_ae_title: str
    contexts: tuple[ProposedContext, ...]
    user: UserInformation = field(default_factory=UserInformation)
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1


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
    user: UserInformation = field(default_factory=UserInformation)


def decode_request(body: bytes) -> AssociateRequest:
    """Parse the body of an A-ASSOCIATE-RQ; unknown items and sub-items are skipped (PS3.8 section 9.3.1)."""
    version, called, calling, parts = _decode_fixed(body)
    contexts: dict[int, ProposedContext] = {}
    application_context, user = "", UserInformation()
    for kind, value in parts:
        if kind == _APPLICATION_CONTEXT_ITEM:
            application_context = uid_text(value)
        elif kind == _PROPOSED_CONTEXT_ITEM:
            context = _decode_proposed(value)
            if context.context_id in contexts:
                raise invalid(f"presentation context id {context.context_id} twice")
            contexts[context.context_id] = context
        elif kind == _USER_INFORMATION_ITEM:
            user = decode_user_information(value)
    return AssociateRequest(
        calling_ae_title=calling,
        called_ae_title=called,
        contexts=tuple(_related(context, user) for context in contexts.values()),
        user=user,
        application_context=application_context,
        protocol_version=version,
    )


def decode_accept(body: bytes) -> AssociateAccept:
    """Parse the body of an A-ASSOCIATE-AC."""
    _, _, _, parts = _decode_fixed(body)
    contexts: list[AnsweredContext] = []
    user = UserInformation()
    for kind, value in parts:
        if kind == _ANSWERED_CONTEXT_ITEM:
            contexts.append(_decode_answered(value))
        elif kind == _USER_INFORMATION_ITEM:
            user = decode_user_information(value)
    return AssociateAccept(tuple(contexts), user)


def encode_request(
    calling_ae_title: str, called_ae_title: str, contexts: Sequence[ProposedContext], user: UserInformation
) -> bytes:
    """An A-ASSOCIATE-RQ; related general SOP classes are taken from the contexts."""
    parts = [item(_APPLICATION_CONTEXT_ITEM, APPLICATION_CONTEXT.encode("ascii"))]
    for context in contexts:
        syntaxes = b"".join(item(_TRANSFER_SYNTAX_ITEM, uid.encode("ascii")) for uid in context.transfer_syntaxes)
        abstract = item(_ABSTRACT_SYNTAX_ITEM, context.abstract_syntax.encode("ascii"))
        parts.append(item(_PROPOSED_CONTEXT_ITEM, bytes((context.context_id, 0, 0, 0)) + abstract + syntaxes))
    related = {context.abstract_syntax: context.related_general for context in contexts if context.related_general}
    user = replace(user, related_general=related)
    return _encode(PduType.A_ASSOCIATE_RQ, calling_ae_title, called_ae_title, parts, user)


def encode_accept(
    request: AssociateRequest,
    accepted: Mapping[int, AcceptedContext],
    refusals: Mapping[int, int],
    user: UserInformation,
) -> bytes:
    """The A-ASSOCIATE-AC of a request: its AE titles again, and a result for each of its contexts."""
    parts = [item(_APPLICATION_CONTEXT_ITEM, APPLICATION_CONTEXT.encode("ascii"))]
    for context in request.contexts:
        answer = accepted.get(context.context_id)
        result = ACCEPTANCE if answer else refusals.get(context.context_id, ABSTRACT_SYNTAX_NOT_SUPPORTED)
        # not significant when refused, but the item must be there: one of those proposed
        syntax = answer.transfer_syntax if answer else next(iter(context.transfer_syntaxes), "")
        value = bytes((context.context_id, 0, result, 0)) + item(_TRANSFER_SYNTAX_ITEM, syntax.encode("ascii"))
        parts.append(item(_ANSWERED_CONTEXT_ITEM, value))
    return _encode(PduType.A_ASSOCIATE_AC, request.calling_ae_title, request.called_ae_title, parts, user)


def _encode(kind: PduType, calling: str, called: str, parts: list[bytes], user: UserInformation) -> bytes:
    body = b"".join(
        (
            _FIXED.pack(1, 0, _ae_title(called), _ae_title(calling), bytes(32)),
            *parts,
            item(_USER_INFORMATION_ITEM, encode_user_information(user)),
        )
    )
    return PDU_HEADER.pack(kind, len(body)) + body


def _decode_fixed(body: bytes) -> tuple[int, str, str, Iterator[tuple[int, bytes]]]:
    if len(body) < _FIXED.size:
        raise invalid(f"association PDU of {len(body)} bytes is too short")
    version, _, called, calling, _ = _FIXED.unpack_from(body)
    return version, text(called), text(calling), items(body[_FIXED.size :])


def _decode_proposed(value: bytes) -> ProposedContext:
    context_id = _context_id(value)
    abstract, syntaxes = "", []
    for kind, uid in items(value[_CONTEXT_ITEM:]):
        if kind == _ABSTRACT_SYNTAX_ITEM:
            abstract = uid_text(uid)
        elif kind == _TRANSFER_SYNTAX_ITEM:
            syntaxes.append(uid_text(uid))
    if not abstract or not syntaxes:
        raise invalid(f"presentation context {context_id} lacks an abstract or transfer syntax")
    return ProposedContext(context_id, abstract, tuple(syntaxes))


def _related(context: ProposedContext, user: UserInformation) -> ProposedContext:
    general = user.related_general.get(context.abstract_syntax)
    return replace(context, related_general=general) if general else context


def _decode_answered(value: bytes) -> AnsweredContext:
    context_id = _context_id(value)
    syntax = next((uid_text(uid) for kind, uid in items(value[_CONTEXT_ITEM:]) if kind == _TRANSFER_SYNTAX_ITEM), "")
    if value[2] == ACCEPTANCE and not syntax:
        raise invalid(f"accepted presentation context {context_id} lacks a transfer syntax")
    return AnsweredContext(context_id, value[2], syntax)


def _context_id(value: bytes) -> int:
    if len(value) < _CONTEXT_ITEM:
        raise invalid("presentation context item is too short")
    if value[0] % 2 == 0:
        raise invalid(f"presentation context id {value[0]} is not odd")
    return value[0]


def _ae_title(title: str) -> bytes:
    return title.encode("latin-1", "replace")[:MAX_AE_TITLE].ljust(MAX_AE_TITLE)
