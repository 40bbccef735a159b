"""Protocol data units but A-ASSOCIATE-RQ and -AC (PS3.8 section 9.3): headers, rejection, release, abort."""

import struct
from enum import IntEnum
from typing import ClassVar

from imaging_services.domain.dicom.dimse import Rejection
from imaging_services.domain.errors import InvalidInput

PDU_HEADER = struct.Struct(">BxI")
"""Type and length; the length counts what follows the header."""
PDV_HEADER = struct.Struct(">IBB")
"""Item length, presentation context id, message control header; the length counts id, control and fragment."""
P_DATA_HEADER = struct.Struct(">BxIIBB")
"""PDU header and PDV header of a P-DATA-TF with one presentation data value."""
_FIXED_BODY = struct.Struct(">BBBB")

COMMAND_FRAGMENT = 0x01
LAST_FRAGMENT = 0x02
PDV_OVERHEAD = 6
FIXED_BODY_LENGTH = 4


class PduType(IntEnum):
    """PDU types (PS3.8 section 9.3.1)."""

    A_ASSOCIATE_RQ = 0x01
    A_ASSOCIATE_AC = 0x02
    A_ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    A_RELEASE_RQ = 0x05
    A_RELEASE_RP = 0x06
    A_ABORT = 0x07


class AbortSource(IntEnum):
    """Who aborts (PS3.8 table 9-26)."""

    SERVICE_USER = 0
    SERVICE_PROVIDER = 2


class AbortReason(IntEnum):
    """Why the service provider aborts (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class ProtocolViolation(InvalidInput):
    """The peer broke PS3.7 or PS3.8; the association is aborted with ``source`` and ``reason``."""

    source: ClassVar[AbortSource] = AbortSource.SERVICE_PROVIDER

    def __init__(self, reason: AbortReason, why: str) -> None:
        super().__init__(why)
        self.reason = reason


RELEASE_RQ = PDU_HEADER.pack(PduType.A_RELEASE_RQ, FIXED_BODY_LENGTH) + bytes(4)
RELEASE_RP = PDU_HEADER.pack(PduType.A_RELEASE_RP, FIXED_BODY_LENGTH) + bytes(4)


def encode_abort(source: int, reason: int) -> bytes:
    """An A-ABORT; the reason is not significant when the source is the service user."""
    body = _FIXED_BODY.pack(0, 0, source, reason if source == AbortSource.SERVICE_PROVIDER else 0)
    return PDU_HEADER.pack(PduType.A_ABORT, FIXED_BODY_LENGTH) + body


def decode_abort(body: bytes) -> tuple[int, int]:
    """Source and reason of an A-ABORT's body."""
    _, _, source, reason = _FIXED_BODY.unpack(_fixed(body, "A-ABORT"))
    return source, reason


def encode_reject(rejection: Rejection) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 section 9.3.4)."""
    body = _FIXED_BODY.pack(0, rejection.result, rejection.source, rejection.reason)
    return PDU_HEADER.pack(PduType.A_ASSOCIATE_RJ, FIXED_BODY_LENGTH) + body


def decode_reject(body: bytes) -> Rejection:
    """An A-ASSOCIATE-RJ's body, with the reason in words."""
    _, result, source, reason = _FIXED_BODY.unpack(_fixed(body, "A-ASSOCIATE-RJ"))
    return Rejection(result, source, reason, _REJECT_REASONS.get((source, reason), "no reason given"))


def _fixed(body: bytes, name: str) -> bytes:
    if len(body) != FIXED_BODY_LENGTH:
        raise ProtocolViolation(AbortReason.INVALID_PARAMETER, f"{name} of {len(body)} bytes, not 4")
    return body


_REJECT_REASONS = {
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognized",
    (1, 7): "called AE title not recognized",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}
