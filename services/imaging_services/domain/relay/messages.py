"""The messages of a relay and their encoding: text headers, and the data set's bytes as payload.

Version 1. The command set travels as DICOM bytes (PS3.7 section 6.3.1) in base 64, AE titles percent-encoded,
so that any language can read them and elements that we do not know pass through.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Self
from urllib.parse import quote, unquote

from imaging_services.domain.dicom.command_set import CommandSet
from imaging_services.domain.dicom.storage_scp import Context
from imaging_services.domain.errors import ImagingError, InvalidInput, RetryableError

VERSION = "1"

Headers = Mapping[str, str]

H_VERSION = "Imaging-Version"
H_ASSOCIATION = "Imaging-Association"
H_CALLING = "Imaging-Calling-AE"
H_CALLED = "Imaging-Called-AE"
H_ABSTRACT = "Imaging-Abstract-Syntax"
H_SOP_CLASS = "Imaging-SOP-Class"
H_SOP_INSTANCE = "Imaging-SOP-Instance"
H_TRANSFER_SYNTAX = "Imaging-Transfer-Syntax"
H_EXTENDED = "Imaging-Extended-Negotiation"
H_COMMAND = "Imaging-Command"
H_SIZE = "Imaging-Size"
H_DIGEST = "Imaging-Digest"
H_OBJECT = "Imaging-Object"
H_ACCEPTED = "Imaging-Accepted-At"
H_MESSAGE = "Imaging-Message"
H_REQUEST = "Imaging-Request"
H_WORKER = "Imaging-Worker"
H_SILENCE = "Imaging-Silence-Seconds"
H_KIND = "Imaging-Kind"
H_SEQUENCE = "Imaging-Sequence"
H_DOMAIN = "Imaging-Domain"
H_PRIORITY = "Imaging-Priority"
H_ENCODING = "Imaging-Content-Encoding"
H_ERROR = "Imaging-Error"
H_STATE = "Imaging-State"
H_LEASE = "Imaging-Lease-Seconds"

URGENT = "urgent"
"""The value of ``H_PRIORITY``; other stores have none."""
H_TAKES = "Imaging-Takes"
H_HEARS = "Imaging-Hears"
H_SUB_OPERATION = "Imaging-Sub-Operation"
H_LAST = "Imaging-Last"
H_BLOCKS = "Imaging-Blocks"


@dataclass(frozen=True, slots=True)
class Origin:
    """The association at the near side that a message comes from."""

    association_id: str
    calling_ae_title: str
    called_ae_title: str

    def headers(self) -> dict[str, str]:
        """As message headers."""
        return {
            H_VERSION: VERSION,
            H_ASSOCIATION: self.association_id,
            H_CALLING: quote(self.calling_ae_title),
            H_CALLED: quote(self.called_ae_title),
        }

    @classmethod
    def from_headers(cls, headers: Headers) -> Self:
        """Raises ``InvalidInput`` for another version or an absent header."""
        if headers.get(H_VERSION) != VERSION:
            raise InvalidInput(f"relay message of version {headers.get(H_VERSION)!r}, this end speaks {VERSION}")
        calling, called = unquote(header(headers, H_CALLING)), unquote(header(headers, H_CALLED))
        return cls(header(headers, H_ASSOCIATION), calling, called)


@dataclass(frozen=True, slots=True)
class Call:
    """A request message at the near side: where it comes from, its presentation context, its command set.

    ``extended`` is the application information that was accepted for its SOP class (PS3.7 section D.3.3.5). Of a C-GET,
    ``takes`` are the contexts in which the requestor takes instances; None: it takes none over the relay. Of a DIMSE-N
    request, ``hears`` are the contexts in which the requestor may be sent event reports."""

    origin: Origin
    abstract_syntax: str
    transfer_syntax: str
    command: CommandSet
    extended: bytes = b""
    takes: tuple[Context, ...] | None = None
    hears: tuple[Context, ...] = ()

    def headers(self) -> dict[str, str]:
        """As message headers."""
        headers = self.origin.headers()
        headers |= {H_ABSTRACT: self.abstract_syntax, H_TRANSFER_SYNTAX: self.transfer_syntax}
        headers[H_COMMAND] = encode_command(self.command)
        if self.extended:
            headers[H_EXTENDED] = self.extended.hex()
        if self.takes is not None:
            headers[H_TAKES] = _encode_contexts(self.takes)
        if self.hears:
            headers[H_HEARS] = _encode_contexts(self.hears)
        return headers

    @classmethod
    def from_headers(cls, headers: Headers) -> Self:
        """Raises ``InvalidInput`` when a header is absent or broken."""
        origin = Origin.from_headers(headers)
        syntaxes = header(headers, H_ABSTRACT), header(headers, H_TRANSFER_SYNTAX)
        try:
            extended = bytes.fromhex(headers.get(H_EXTENDED, ""))
        except ValueError:
            raise InvalidInput(f"relay message with a broken header {H_EXTENDED}") from None
        takes = _decode_contexts(headers, H_TAKES) if H_TAKES in headers else None
        hears = _decode_contexts(headers, H_HEARS) if H_HEARS in headers else ()
        return cls(origin, *syntaxes, decode_command(header(headers, H_COMMAND)), extended, takes, hears)


@dataclass(frozen=True, slots=True)
class StoreMessage:
    """A C-STORE on its way. ``size`` (bytes) and ``digest`` (hex SHA-256) are the data set's; ``object_name`` is
    set when the data set lies in the bucket instead of the payload. ``message`` is this reception's own id: a
    repeated publish has the same, an instance sent again has another. ``accepted_at`` is when the relay took a durable
    one over, or first took it when it was put back; None while nobody waits behind it. An ``urgent`` one overtakes the
    others. ``encoding`` says how the bytes on the way are compressed; size and digest are those of the original."""

    call: Call
    message: str
    size: int
    digest: str
    object_name: str | None = None
    accepted_at: datetime | None = None
    urgent: bool = False
    encoding: str | None = None

    def headers(self) -> dict[str, str]:
        """As message headers; SOP class and instance are repeated in clear for whoever looks at the stream."""
        headers = self.call.headers()
        headers |= {H_MESSAGE: self.message, H_SIZE: str(self.size), H_DIGEST: self.digest}
        command = self.call.command
        headers |= {H_SOP_CLASS: quote(command.sop_class_uid), H_SOP_INSTANCE: quote(command.sop_instance_uid)}
        if self.object_name:
            headers[H_OBJECT] = self.object_name
        if self.accepted_at:
            headers[H_ACCEPTED] = self.accepted_at.isoformat()
        if self.urgent:
            headers[H_PRIORITY] = URGENT
        if self.encoding:
            headers[H_ENCODING] = self.encoding
        return headers

    @classmethod
    def from_headers(cls, headers: Headers) -> Self:
        """Raises ``InvalidInput`` when a header is absent or broken."""
        return cls(
            call=Call.from_headers(headers),
            message=header(headers, H_MESSAGE),
            size=number(headers, H_SIZE),
            digest=header(headers, H_DIGEST),
            object_name=headers.get(H_OBJECT),
            accepted_at=_moment(headers.get(H_ACCEPTED)),
            urgent=headers.get(H_PRIORITY) == URGENT,
            encoding=headers.get(H_ENCODING),
        )


class ReplyKind(StrEnum):
    """What a reply to a relayed request is: still at work, no room for it now, a part of a response's data set, one
    response (with the last part), a block of a C-STORE that goes back to the requestor of a C-GET (the first one with
    its command), one that broke off, no more responses, or a failure."""

    WORKING = "working"
    BUSY = "busy"
    PART = "part"
    RESPONSE = "response"
    SUB_OPERATION = "sub-operation"
    BROKEN_OFF = "broken-off"
    END = "end"
    FAILED = "failed"


class ControlKind(StrEnum):
    """What the near side says of a request under way: how many responses it has taken, and of a C-GET how many blocks
    and how its last sub-operation was answered; C-CANCEL; or that the requestor of a C-GET has gone."""

    TAKEN = "taken"
    CANCEL = "cancel"
    GONE = "gone"


class AssociationState(StrEnum):
    """What the near side says of its associations."""

    OPEN = "open"
    RENEWED = "renewed"
    LEFT = "left"
    """It asks nothing any more, while what it has stored is still on its way."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class AssociationNotice:
    """An association at the near side is open for at least ``lease_seconds`` more, or has closed."""

    origin: Origin
    state: AssociationState
    lease_seconds: float

    def headers(self) -> dict[str, str]:
        """As message headers."""
        return self.origin.headers() | {H_STATE: self.state, H_LEASE: f"{self.lease_seconds:g}"}

    @classmethod
    def from_headers(cls, headers: Headers) -> Self:
        """Raises ``InvalidInput`` when a header is absent or broken."""
        try:
            state, lease = AssociationState(header(headers, H_STATE)), float(header(headers, H_LEASE))
        except ValueError as error:
            raise InvalidInput(f"relay message with a broken header: {error}") from error
        return cls(Origin.from_headers(headers), state, lease)


def _encode_contexts(contexts: Sequence[Context]) -> str:
    by_class: dict[str, list[str]] = {}
    for sop_class, syntax in contexts:
        by_class.setdefault(sop_class, []).append(syntax)
    return json.dumps(by_class, separators=(",", ":"))


def _decode_contexts(headers: Headers, name: str) -> tuple[Context, ...]:
    try:
        by_class = json.loads(headers[name])
        return tuple((str(uid), str(syntax)) for uid, syntaxes in by_class.items() for syntax in syntaxes)
    except (ValueError, AttributeError, TypeError):
        raise InvalidInput(f"relay message with a broken header {name}") from None


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        raise InvalidInput(f"relay message with a broken header {H_ACCEPTED}") from None


def header(headers: Headers, name: str) -> str:
    """A header's text. Raises ``InvalidInput`` when it is absent."""
    try:
        return headers[name]
    except KeyError:
        raise InvalidInput(f"relay message without header {name}") from None


def number(headers: Headers, name: str) -> int:
    """A header's whole number. Raises ``InvalidInput`` when it is absent or none."""
    try:
        return int(header(headers, name))
    except ValueError:
        raise InvalidInput(f"relay message with a broken header {name}") from None


def encode_command(command: CommandSet) -> str:
    """A command set as header text."""
    return base64.b64encode(command.encode()).decode()


def decode_command(text: str) -> CommandSet:
    """A command set from header text. Raises ``InvalidInput`` when it is broken."""
    try:
        return CommandSet.decode(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise InvalidInput(f"relay message with a broken command set: {error}") from error


def error_from(name: str, sentence: str) -> ImagingError:
    """The far side's error as the same type here; an unknown type may be tried again."""
    pending: list[type[ImagingError]] = [ImagingError]
    while pending:
        cls = pending.pop()
        if cls.__name__ == name:
            return cls(sentence)
        pending.extend(cls.__subclasses__())
    return RetryableError(f"{name}: {sentence}")
