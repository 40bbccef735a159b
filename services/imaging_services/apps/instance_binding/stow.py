"""Handing an instance on by STOW-RS (PS3.18 section 10.5), and reading the answer."""

import re
from collections.abc import AsyncIterator
from typing import Any

import orjson
import structlog

from imaging_services.apps.instance_binding.instance import Instance
from imaging_services.domain.dicom.multipart_writer import MultipartWriter
from imaging_services.domain.errors import BackendUnavailable, OutOfResources, Refused
from imaging_services.domain.http import HttpClient, HttpReply

log = structlog.get_logger(__name__)

_ACCEPT = "application/dicom+json"
# The statuses of PS3.18 table 10.5.3-1 that come with a Store Instances Response.
_ANSWERS = frozenset({400, 409})
_FAILED_SOP_SEQUENCE, _FAILURE_REASON, _WARNING_REASON = "00081198", "00081197", "00081196"
_REFERENCED_SOP_SEQUENCE = "00081199"

_PROCESSING_FAILURE = 0x0110
_DUPLICATE_SOP_INSTANCE = 0x0111
# PS3.18 table I.2-2 and PS3.7 annex C
_MEANINGS = {
    _PROCESSING_FAILURE: "processing failure",
    0x0117: "invalid SOP instance",
    0x0122: "SOP class not supported",
    0x0124: "not authorized",
    0xC122: "transfer syntax not supported",
}
_XML_REASON = re.compile(rb'tag="00081197"[^>]*>\s*<Value[^>]*>\s*(\d{1,5})\s*<')


class StowTarget:
    """A remote studies resource; the client's base URL is its address."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def send(self, instance: Instance) -> None:
        """Return when the target has said that it stored the instance.

        Raises ``OutOfResources`` or ``BackendUnavailable`` when it may store it later, ``Refused`` with the reason
        when it will not.
        """
        writer = MultipartWriter()
        # No transfer-syntax parameter, which is optional: the file meta header says it, and Orthanc 1.10 passes over
        # a part whose type is not exactly application/dicom.
        head = writer.head({"Content-Type": "application/dicom"}, first=True)
        reply = await self._http.request(
            "POST",
            content=_framed(head, instance, writer.end),
            headers={
                "content-type": writer.content_type("application/dicom"),
                "content-length": str(len(head) + instance.size + len(writer.end)),
                "accept": _ACCEPT,
            },
            accept=_ANSWERS,
        )
        judge(reply, instance.sop_instance_uid)


async def _framed(head: bytes, instance: Instance, end: bytes) -> AsyncIterator[bytes]:
    yield head
    async for block in instance.file():
        yield block
    yield end


def judge(reply: HttpReply, sop_instance_uid: str) -> None:
    """Return when the answer says stored; otherwise raise what its failure reason means."""
    document = _json(reply.body)
    reasons = _json_reasons(document) if document is not None else _xml_reasons(reply.body)
    if reasons and reasons[0] == _DUPLICATE_SOP_INSTANCE:
        log.warning("target had the instance already", instance=sop_instance_uid)
        return
    if reasons:
        raise _failed(reply.status, reasons[0])
    if reply.status in _ANSWERS:
        text = " ".join(reply.body[:300].decode(errors="replace").split())
        raise Refused(f"the target refused the instance: HTTP {reply.status} {text}".rstrip())
    if not _names_an_instance(document, reply.body):
        raise Refused("the target answered success, but names no instance that it stored")
    if warnings := _warnings(document):
        log.warning("target stored with a warning", instance=sop_instance_uid, reason=f"{warnings[0]:04X}H")


def _names_an_instance(document: dict[str, Any] | None, body: bytes) -> bool:
    """False for a Store Instances Response that names none: Orthanc answers so when it passed over the part. An answer
    that is no such response, as of targets that say nothing but 200, is believed."""
    if document is not None:
        is_response = _REFERENCED_SOP_SEQUENCE in document or _FAILED_SOP_SEQUENCE in document
        return not is_response or bool(_items(document, _REFERENCED_SOP_SEQUENCE))
    return b"NativeDicomModel" not in body or b'tag="00081155"' in body


def _failed(status: int, reason: int) -> Refused | BackendUnavailable | OutOfResources:
    meaning = _MEANINGS.get(reason) or _meaning_of_range(reason)
    sentence = f"the target did not store the instance: {meaning} (failure reason {reason:04X}H, HTTP {status})"
    if reason & 0xFF00 == 0xA700:
        return OutOfResources(sentence)
    # A processing failure is what archives also say of a full database or a lost connection.
    return BackendUnavailable(sentence) if reason == _PROCESSING_FAILURE else Refused(sentence)


def _meaning_of_range(reason: int) -> str:
    if reason & 0xFF00 == 0xA700:
        return "out of resources"
    if reason & 0xFF00 == 0xA900:
        return "data set does not match SOP class"
    return "cannot understand" if reason & 0xF000 == 0xC000 else "failure"


def _json(body: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if isinstance(document, list):
        document = document[0] if document else {}
    return document if isinstance(document, dict) else None


def _json_reasons(document: dict[str, Any]) -> list[int]:
    """Failure reasons, one for each failed instance; a failure without a reason is a processing failure."""
    failed = _items(document, _FAILED_SOP_SEQUENCE)
    return [_number(item, _FAILURE_REASON) or _PROCESSING_FAILURE for item in failed]


def _xml_reasons(body: bytes) -> list[int]:
    """The same of the Native DICOM Model (PS3.19 annex A.1), which some targets answer whatever is accepted."""
    return [int(value) for value in _XML_REASON.findall(body)]


def _warnings(document: dict[str, Any] | None) -> list[int]:
    stored = _items(document or {}, _REFERENCED_SOP_SEQUENCE)
    return [reason for item in stored if (reason := _number(item, _WARNING_REASON))]


def _items(document: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    attribute = document.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _number(item: dict[str, Any], tag: str) -> int | None:
    attribute = item.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return values[0] if isinstance(values, list) and values and isinstance(values[0], int) else None
