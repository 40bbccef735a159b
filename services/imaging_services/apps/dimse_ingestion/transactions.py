"""Storage commitment transactions (PS3.4 annex J.3): N-ACTION's information → job → N-EVENT-REPORT's information."""

import json
import zlib
from dataclasses import dataclass

from imaging_services.apps.dimse_ingestion.identifiers import Key, decode_identifier, encode_identifier
from imaging_services.domain.dicom.transfer_syntaxes import IMPLICIT_VR_LITTLE_ENDIAN, Encoding
from imaging_services.domain.dicom.uids import is_uid
from imaging_services.domain.errors import InvalidInput

STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class."""
WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Storage Commitment Push Model SOP Instance."""
REQUEST_COMMITMENT = 1
"""Action Type ID of the one action (PS3.4 table J.3-1)."""
COMMITTED, SOME_FAILED = 1, 2
"""Event Type IDs (PS3.4 table J.3-2)."""

_RETRIEVE_AE_TITLE = 0x00080054
_REFERENCED_SOP_CLASS_UID = 0x00081150
_REFERENCED_SOP_INSTANCE_UID = 0x00081155
_TRANSACTION_UID = 0x00081195
_FAILURE_REASON = 0x00081197
_FAILED_SOP_SEQUENCE = 0x00081198
_REFERENCED_SOP_SEQUENCE = 0x00081199
_LARGEST_JOB = 64 * 1024 * 1024  # bytes, inflated


@dataclass(frozen=True, slots=True)
class Reference:
    """An instance that the requestor wants to be safe."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """What was asked for and by whom. ``association_id`` is the association that it came by, ``owner`` the process that
    has it (empty for one at the other end of the relay), ``transfer_syntax`` that of its context."""

    uid: str
    calling_ae_title: str
    association_id: str
    owner: str
    references: tuple[Reference, ...]
    transfer_syntax: str = IMPLICIT_VR_LITTLE_ENDIAN

    def encode(self) -> bytes:
        """As the body of a job."""
        document = {
            "transaction": self.uid,
            "calling": self.calling_ae_title,
            "association": self.association_id,
            "owner": self.owner,
            "syntax": self.transfer_syntax,
            "references": [[one.sop_class_uid, one.sop_instance_uid] for one in self.references],
        }
        return zlib.compress(json.dumps(document).encode())

    @classmethod
    def decode(cls, body: bytes) -> "Transaction":
        """The reverse. Raises ``InvalidInput``."""
        try:
            document = json.loads(zlib.decompressobj().decompress(body, _LARGEST_JOB))
            return cls(
                str(document["transaction"]),
                str(document["calling"]),
                str(document["association"]),
                str(document["owner"]),
                tuple(Reference(str(one), str(other)) for one, other in document["references"]),
                str(document.get("syntax", IMPLICIT_VR_LITTLE_ENDIAN)),  # absent in what an older version kept
            )
        except (zlib.error, KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"job of a storage commitment is broken: {error!r}") from error


def read_request(data: bytes, encoding: Encoding) -> tuple[str, tuple[Reference, ...]]:
    """Transaction UID and references of N-ACTION's information (PS3.4 table J.3-2); blocking, there may be thousands.
    Raises ``InvalidInput``."""
    keys = {key.tag: key for key in decode_identifier(data, encoding)}
    uid = _first(keys.get(_TRANSACTION_UID))
    if not is_uid(uid):
        raise InvalidInput("the storage commitment request has no Transaction UID (0008,1195)")
    items = keys[_REFERENCED_SOP_SEQUENCE].items if _REFERENCED_SOP_SEQUENCE in keys else ()
    found = tuple(_reference({key.tag: key for key in item}) for item in items)
    if not found or not all(is_uid(one.sop_class_uid) and is_uid(one.sop_instance_uid) for one in found):
        raise InvalidInput("Referenced SOP Sequence (0008,1199) is empty, or an item lacks a UID")
    return uid, found


def _reference(keys: dict[int, Key]) -> Reference:
    return Reference(_first(keys.get(_REFERENCED_SOP_CLASS_UID)), _first(keys.get(_REFERENCED_SOP_INSTANCE_UID)))


def _first(key: Key | None) -> str:
    return key.values[0] if key is not None and key.values else ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which references are safe, and the Failure Reason (0008,1197) of those that are not."""

    safe: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...] = ()

    @property
    def event_type(self) -> int:
        """Event Type ID of the report."""
        return SOME_FAILED if self.failed else COMMITTED


def write_report(transaction_uid: str, verdict: Verdict, ae_title: str, encoding: Encoding) -> bytes:
    """N-EVENT-REPORT's information (PS3.4 table J.3-3); blocking, as there may be thousands."""
    failed = (_item(one, Key(_FAILURE_REASON, "US", (str(reason),))) for one, reason in verdict.failed)
    report = [
        Key(_RETRIEVE_AE_TITLE, "AE", (ae_title,)),
        Key(_TRANSACTION_UID, "UI", (transaction_uid,)),
        Key(_FAILED_SOP_SEQUENCE, "SQ", items=tuple(failed)),
        Key(_REFERENCED_SOP_SEQUENCE, "SQ", items=tuple(map(_item, verdict.safe))),
    ]
    return encode_identifier([key for key in report if key.values or key.items], encoding)


def _item(reference: Reference, *more: Key) -> tuple[Key, ...]:
    return (
        Key(_REFERENCED_SOP_CLASS_UID, "UI", (reference.sop_class_uid,)),
        Key(_REFERENCED_SOP_INSTANCE_UID, "UI", (reference.sop_instance_uid,)),
        *more,
    )
