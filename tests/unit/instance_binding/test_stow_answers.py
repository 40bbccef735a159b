"""What a Store Instances Response means for the instance that was sent."""

from dataclasses import dataclass, field

import orjson
import pytest
import structlog

from imaging_services.apps.instance_binding.stow import judge
from imaging_services.domain.errors import BackendUnavailable, ImagingError, OutOfResources, Refused


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def failed(reason: int | None) -> bytes:
    item = {"00081155": {"vr": "UI", "Value": ["1.2.3"]}}
    if reason is not None:
        item["00081197"] = {"vr": "US", "Value": [reason]}  # type: ignore[dict-item]
    return orjson.dumps({"00081198": {"vr": "SQ", "Value": [item]}})


XML = b"""<?xml version="1.0"?><NativeDicomModel><DicomAttribute keyword="FailedSOPSequence" tag="00081198" vr="SQ">
<Item number="1"><DicomAttribute keyword="FailureReason" tag="00081197" vr="US"><Value number="1">%d</Value>
</DicomAttribute></Item></DicomAttribute></NativeDicomModel>"""


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200),
        Answer(200, b"{}"),
        Answer(200, b"[]"),
        Answer(200, orjson.dumps({"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1"]}}]}})),
        Answer(202, failed(0x0111)),
        Answer(409, failed(0x0111)),
        Answer(200, b"<html>stored</html>"),
    ],
)
def test_stored(answer: Answer) -> None:
    judge(answer, "1.2.3")


@pytest.mark.parametrize(
    ("answer", "error", "reason"),
    [
        (Answer(409, failed(0xA700)), OutOfResources, "A700H"),
        (Answer(202, failed(0xA7FF)), OutOfResources, "out of resources"),
        (Answer(409, failed(0x0110)), BackendUnavailable, "processing failure"),
        (Answer(409, failed(None)), BackendUnavailable, "processing failure"),
        (Answer(409, failed(0xA900)), Refused, "does not match"),
        (Answer(200, failed(0xC000)), Refused, "cannot understand"),
        (Answer(409, failed(0xC122)), Refused, "transfer syntax not supported"),
        (Answer(409, failed(0x0122)), Refused, "SOP class not supported"),
        (Answer(409, failed(0x0124)), Refused, "not authorized"),
        (Answer(409, b"no reason given"), Refused, "no reason given"),
        (Answer(400, b"bad"), Refused, "HTTP 400 bad"),
        (Answer(409), Refused, "HTTP 409"),
        (Answer(200, orjson.dumps({"00081198": {"vr": "SQ"}, "00081199": {"vr": "SQ"}})), Refused, "names no instance"),
        (Answer(200, b"<NativeDicomModel></NativeDicomModel>"), Refused, "names no instance"),
        (Answer(202, XML % 0xA700), OutOfResources, "A700H"),
        (Answer(409, XML % 0xC000), Refused, "C000H"),
    ],
)
def test_not_stored(answer: Answer, error: type[ImagingError], reason: str) -> None:
    with pytest.raises(error, match=reason):
        judge(answer, "1.2.3")


def test_a_warning_is_logged() -> None:
    item = {"00081155": {"vr": "UI", "Value": ["1"]}, "00081196": {"vr": "US", "Value": [0xB000]}}
    with structlog.testing.capture_logs() as lines:
        judge(Answer(202, orjson.dumps({"00081199": {"vr": "SQ", "Value": [item]}})), "1.2.3")
    assert lines[0]["reason"] == "B000H"
    assert lines[0]["log_level"] == "warning"
