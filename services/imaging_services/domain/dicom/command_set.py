"""DIMSE command sets (PS3.7 section 6.3.1 and annex E): always Implicit VR Little Endian, group 0000."""

import struct
from dataclasses import dataclass, field
from enum import IntEnum

from imaging_services.domain.errors import InvalidInput

_UI, _US, _UL, _AE, _LO, _AT = "UI", "US", "UL", "AE", "LO", "AT"

AFFECTED_SOP_CLASS_UID = 0x0002
REQUESTED_SOP_CLASS_UID = 0x0003
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
MOVE_DESTINATION = 0x0600
PRIORITY = 0x0700
COMMAND_DATA_SET_TYPE = 0x0800
STATUS = 0x0900
OFFENDING_ELEMENT = 0x0901
ERROR_COMMENT = 0x0902
ERROR_ID = 0x0903
AFFECTED_SOP_INSTANCE_UID = 0x1000
REQUESTED_SOP_INSTANCE_UID = 0x1001
EVENT_TYPE_ID = 0x1002
ACTION_TYPE_ID = 0x1008
NUMBER_OF_REMAINING_SUB_OPERATIONS = 0x1020
NUMBER_OF_COMPLETED_SUB_OPERATIONS = 0x1021
NUMBER_OF_FAILED_SUB_OPERATIONS = 0x1022
NUMBER_OF_WARNING_SUB_OPERATIONS = 0x1023
MOVE_ORIGINATOR_AE_TITLE = 0x1030
MOVE_ORIGINATOR_MESSAGE_ID = 0x1031

NO_DATA_SET = 0x0101

_VR: dict[int, str] = {
    AFFECTED_SOP_CLASS_UID: _UI,
    REQUESTED_SOP_CLASS_UID: _UI,
    COMMAND_FIELD: _US,
    MESSAGE_ID: _US,
    MESSAGE_ID_BEING_RESPONDED_TO: _US,
    MOVE_DESTINATION: _AE,
    PRIORITY: _US,
    COMMAND_DATA_SET_TYPE: _US,
    STATUS: _US,
    OFFENDING_ELEMENT: _AT,
    ERROR_COMMENT: _LO,
    ERROR_ID: _US,
    AFFECTED_SOP_INSTANCE_UID: _UI,
    REQUESTED_SOP_INSTANCE_UID: _UI,
    EVENT_TYPE_ID: _US,
    0x1005: _AT,  # Attribute Identifier List
    ACTION_TYPE_ID: _US,
    NUMBER_OF_REMAINING_SUB_OPERATIONS: _US,
    NUMBER_OF_COMPLETED_SUB_OPERATIONS: _US,
    NUMBER_OF_FAILED_SUB_OPERATIONS: _US,
    NUMBER_OF_WARNING_SUB_OPERATIONS: _US,
    MOVE_ORIGINATOR_AE_TITLE: _AE,
    MOVE_ORIGINATOR_MESSAGE_ID: _US,
}
_TEXT = {_UI, _AE, _LO}


class CommandField(IntEnum):
    """Command Field (0000,0100) values of PS3.7 annex E; a response is its request + 8000H."""

    C_STORE_RQ = 0x0001
    C_STORE_RSP = 0x8001
    C_GET_RQ = 0x0010
    C_GET_RSP = 0x8010
    C_FIND_RQ = 0x0020
    C_FIND_RSP = 0x8020
    C_MOVE_RQ = 0x0021
    C_MOVE_RSP = 0x8021
    C_ECHO_RQ = 0x0030
    C_ECHO_RSP = 0x8030
    C_CANCEL_RQ = 0x0FFF
    N_EVENT_REPORT_RQ = 0x0100
    N_ACTION_RQ = 0x0130


@dataclass(slots=True)
class CommandSet:
    """The elements of a command set by element number (group 0000 left out).

    US, UL and AT values are ints (AT: group << 16 | element), UI, AE and LO are str without padding; an
    element this table does not know keeps its bytes, so relaying loses nothing.
    """

    elements: dict[int, int | str | bytes] = field(default_factory=dict)

    def number(self, element: int, default: int | None = None) -> int:
        """A US, UL or AT value. Raises ``InvalidInput`` when absent and there is no default."""
        value = self.elements.get(element, default)
        if not isinstance(value, int):
            raise InvalidInput(f"command set lacks the number (0000,{element:04X})")
        return value

    def text(self, element: int, default: str = "") -> str:
        """A UI, AE or LO value, or the default when absent."""
        value = self.elements.get(element, default)
        return value if isinstance(value, str) else default

    @property
    def command_field(self) -> int:
        """Command Field (0000,0100)."""
        return self.number(COMMAND_FIELD)

    @property
    def message_id(self) -> int:
        """Message ID (0000,0110) of a request."""
        return self.number(MESSAGE_ID)

    @property
    def status(self) -> int:
        """Status (0000,0900) of a response."""
        return self.number(STATUS)

    @property
    def sop_class_uid(self) -> str:
        """Affected, else Requested SOP Class UID."""
        return self.text(AFFECTED_SOP_CLASS_UID) or self.text(REQUESTED_SOP_CLASS_UID)

    @property
    def sop_instance_uid(self) -> str:
        """Affected, else Requested SOP Instance UID."""
        return self.text(AFFECTED_SOP_INSTANCE_UID) or self.text(REQUESTED_SOP_INSTANCE_UID)

    @property
    def has_data_set(self) -> bool:
        """Command Data Set Type (0000,0800) says that a data set follows."""
        return self.number(COMMAND_DATA_SET_TYPE, NO_DATA_SET) != NO_DATA_SET

    def response(self, status: int, *, has_data_set: bool = False, error_comment: str = "") -> "CommandSet":
        """The response to this request: same SOP class and instance, given status."""
        out: dict[int, int | str | bytes] = {
            COMMAND_FIELD: self.command_field | 0x8000,
            MESSAGE_ID_BEING_RESPONDED_TO: self.message_id,
            COMMAND_DATA_SET_TYPE: 0x0001 if has_data_set else NO_DATA_SET,
            STATUS: status,
        }
        if self.sop_class_uid:
            out[AFFECTED_SOP_CLASS_UID] = self.sop_class_uid
        if self.sop_instance_uid:
            out[AFFECTED_SOP_INSTANCE_UID] = self.sop_instance_uid
        if error_comment:
            out[ERROR_COMMENT] = error_comment[:64]
        return CommandSet(out)

    def encode(self) -> bytes:
        """The encoded command set with its Command Group Length (0000,0000)."""
        body = b"".join(_encode_element(number, self.elements[number]) for number in sorted(self.elements))
        return struct.pack("<HHII", 0, 0, 4, len(body)) + body

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> "CommandSet":
        """Parse an encoded command set. Elements of other groups are left out. Raises ``InvalidInput`` when it is cut
        short."""
        view, pos, elements = memoryview(data), 0, {}
        while pos < len(view):
            if pos + 8 > len(view):
                raise InvalidInput("command set is cut short")
            group, number, length = struct.unpack_from("<HHI", view, pos)
            pos += 8
            if pos + length > len(view):
                raise InvalidInput("command set is malformed")
            if group == 0 and number != 0:  # Orthanc adds (0008,0058) to some responses
                elements[number] = _decode_element(number, bytes(view[pos : pos + length]))
            pos += length
        return cls(elements)


def _encode_element(number: int, value: int | str | bytes) -> bytes:
    vr = _VR.get(number)
    if isinstance(value, str):
        raw = value.encode("latin-1", "replace")
        if len(raw) % 2:
            raw += b"\0" if vr == _UI else b" "
    elif isinstance(value, int):
        raw = struct.pack("<HH", value >> 16, value & 0xFFFF) if vr == _AT else struct.pack("<H", value)
    else:
        raw = value
    return struct.pack("<HHI", 0, number, len(raw)) + raw


def _decode_element(number: int, raw: bytes) -> int | str | bytes:
    vr = _VR.get(number)
    if vr == _US and len(raw) == 2:
        return int.from_bytes(raw, "little")
    if vr == _AT and len(raw) == 4:
        group, element = struct.unpack("<HH", raw)
        return int(group << 16 | element)
    if vr in _TEXT:
        return raw.decode("latin-1").strip("\0 ")
    return raw


def store_request(sop_class_uid: str, sop_instance_uid: str, *, message_id: int = 1, priority: int = 0) -> CommandSet:
    """A C-STORE-RQ command set (PS3.7 section 9.3.1.1); priority 0 is MEDIUM."""
    return CommandSet(
        {
            AFFECTED_SOP_CLASS_UID: sop_class_uid,
            COMMAND_FIELD: CommandField.C_STORE_RQ,
            MESSAGE_ID: message_id,
            PRIORITY: priority,
            COMMAND_DATA_SET_TYPE: 0x0001,
            AFFECTED_SOP_INSTANCE_UID: sop_instance_uid,
        }
    )


def request(
    command_field: CommandField, sop_class_uid: str, *, message_id: int = 1, has_data_set: bool = False
) -> CommandSet:
    """Any other C- request; C-FIND, C-MOVE and C-GET get priority MEDIUM."""
    elements: dict[int, int | str | bytes] = {
        AFFECTED_SOP_CLASS_UID: sop_class_uid,
        COMMAND_FIELD: command_field,
        MESSAGE_ID: message_id,
        COMMAND_DATA_SET_TYPE: 0x0001 if has_data_set else NO_DATA_SET,
    }
    if command_field != CommandField.C_ECHO_RQ:
        elements[PRIORITY] = 0
    return CommandSet(elements)
