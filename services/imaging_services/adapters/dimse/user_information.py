"""The user information item of A-ASSOCIATE PDUs (PS3.7 annex D.3.3, PS3.8 annex D.1): what is negotiated besides
presentation contexts."""

import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from imaging_services.adapters.dimse.items import UID_LENGTH, Cursor, invalid, item, items, text, uid_text
from imaging_services.domain.dicom.dimse import Role, UserIdentity
from imaging_services.domain.dicom.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

STORAGE_SERVICE_CLASS = "1.2.840.10008.4.2"

_MAXIMUM_LENGTH = 0x51
_IMPLEMENTATION_CLASS = 0x52
_OPERATIONS_WINDOW = 0x53
_ROLE_SELECTION = 0x54
_IMPLEMENTATION_VERSION = 0x55
_EXTENDED = 0x56
_COMMON_EXTENDED = 0x57
_USER_IDENTITY = 0x58
_IDENTITY_RESPONSE = 0x59

_WINDOW = struct.Struct(">HH")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Window:
    """Asynchronous operations of the requestor (PS3.7 section D.3.3.3): how many it may have under way, and how many
    the acceptor may; 0 is any number."""

    invoked: int
    performed: int

    def within(self, invoked: int, performed: int) -> "Window":
        """What an acceptor with these limits answers."""
        return Window(min(self.invoked or invoked, invoked), min(self.performed or performed, performed))


ONE_AT_A_TIME = Window(1, 1)
"""Where nothing is negotiated."""


@dataclass(frozen=True, slots=True)
class UserInformation:
    """The item of a request or an answer; mappings by SOP class UID. ``related_general`` only counts in a request, as
    ``user_identity`` does, which an answer acknowledges by ``identity_response``."""

    max_pdu_length: int = 0
    implementation: str = ""
    window: Window | None = None
    roles: Mapping[str, Role] = field(default_factory=dict)
    extended: Mapping[str, bytes] = field(default_factory=dict)
    related_general: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    user_identity: UserIdentity | None = None
    identity_response: bytes | None = None


def encode_user_information(user: UserInformation) -> bytes:
    """The value of the item, sub-items in the order of their numbers."""
    parts = [
        item(_MAXIMUM_LENGTH, user.max_pdu_length.to_bytes(4, "big")),
        item(_IMPLEMENTATION_CLASS, IMPLEMENTATION_CLASS_UID.encode("ascii")),
    ]
    if user.window is not None:
        parts.append(item(_OPERATIONS_WINDOW, _WINDOW.pack(user.window.invoked, user.window.performed)))
    for uid, role in user.roles.items():
        parts.append(item(_ROLE_SELECTION, _counted(uid.encode("ascii")) + bytes((role.scu, role.scp))))
    parts.append(item(_IMPLEMENTATION_VERSION, IMPLEMENTATION_VERSION_NAME.encode("ascii")))
    for uid, information in user.extended.items():
        parts.append(item(_EXTENDED, _counted(uid.encode("ascii")) + information))
    for uid, general in user.related_general.items():
        related = b"".join(_counted(one.encode("ascii")) for one in general)
        names = _counted(uid.encode("ascii")) + _counted(STORAGE_SERVICE_CLASS.encode("ascii"))
        parts.append(item(_COMMON_EXTENDED, names + _counted(related)))
    if user.user_identity is not None:
        identity = user.user_identity
        head = bytes((identity.kind, identity.positive_response))
        parts.append(item(_USER_IDENTITY, head + _counted(identity.primary) + _counted(identity.secondary)))
    if user.identity_response is not None:
        parts.append(item(_IDENTITY_RESPONSE, _counted(user.identity_response)))
    return b"".join(parts)


def decode_user_information(value: bytes) -> UserInformation:
    """Parse the item's value; unknown sub-items are skipped. Raises ``ProtocolViolation``."""
    found: defaultdict[int, list[Cursor]] = defaultdict(list)
    for kind, content in items(value):
        found[kind].append(Cursor(content, f"user information sub-item {kind:02X}H"))
    return UserInformation(
        max_pdu_length=_last(found[_MAXIMUM_LENGTH], _maximum_length) or 0,
        implementation=_last(found[_IMPLEMENTATION_VERSION], lambda cursor: text(cursor.rest())) or "",
        window=_last(found[_OPERATIONS_WINDOW], lambda cursor: Window(*_WINDOW.unpack(cursor.take(_WINDOW.size)))),
        roles=dict(map(_role, found[_ROLE_SELECTION])),
        extended={uid_text(cursor.counted()): cursor.rest() for cursor in found[_EXTENDED]},
        related_general=dict(pair for cursor in found[_COMMON_EXTENDED] for pair in _storage_related(cursor)),
        user_identity=_last(found[_USER_IDENTITY], _user_identity),
        identity_response=_last(found[_IDENTITY_RESPONSE], Cursor.counted),
    )


def _last(found: list[Cursor], read: Callable[[Cursor], _Value]) -> _Value | None:
    return read(found[-1]) if found else None


def _maximum_length(cursor: Cursor) -> int:
    if cursor.left != 4:
        raise invalid("maximum length item is not 4 bytes")
    return int.from_bytes(cursor.rest(), "big")


def _role(cursor: Cursor) -> tuple[str, Role]:
    uid = uid_text(cursor.counted())
    scu, scp = cursor.take(2)
    return uid, Role(bool(scu), bool(scp))


def _storage_related(cursor: Cursor) -> Iterator[tuple[str, tuple[str, ...]]]:
    uid, service = uid_text(cursor.counted()), uid_text(cursor.counted())
    general = tuple(_uids(cursor.counted()))
    if service == STORAGE_SERVICE_CLASS:
        yield uid, general


def _user_identity(cursor: Cursor) -> UserIdentity:
    kind, positive_response = cursor.take(2)
    return UserIdentity(kind, bool(positive_response), cursor.counted(), cursor.counted())


def _uids(value: bytes) -> Iterator[str]:
    cursor = Cursor(value, "list of related general SOP classes")
    while cursor.left:
        yield uid_text(cursor.counted())


def _counted(value: bytes) -> bytes:
    return len(value).to_bytes(UID_LENGTH, "big") + value
