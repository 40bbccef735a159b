"""Bad input over the real product: each gets the answer that the Standard names, nothing of it is kept, the services
go on and their logs say why, without the patient's name and id, which are planted in everything sent here."""

import asyncio
import json
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nats
import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from imaging_services.adapters.dimse.associate import encode_request
from imaging_services.adapters.dimse.messages import encode_message
from imaging_services.adapters.dimse.pdu import RELEASE_RQ
from imaging_services.adapters.dimse.user_information import UserInformation
from imaging_services.adapters.nats.relay_dead_letters import RelayDeadLetter, list_relay_dead_letters
from imaging_services.domain.dicom.command_set import COMMAND_DATA_SET_TYPE, ERROR_COMMENT, CommandSet, store_request
from imaging_services.domain.dicom.dimse import ProposedContext
from support.audit import Modality, manifest_rows, objects, until
from support.dimse import RawPeer
from support.instances import element, encoded, instance, part10
from support.stack import Stack, imaging_up

pytestmark = pytest.mark.timeout(120)

NAME, PATIENT_ID = "GEHEIM^PETRA", "PATIENT-4711"
ENTRANCES = ("dimse_ingestion", "dimse_proxy")
A_ASSOCIATE_AC, P_DATA_TF, A_RELEASE_RP, A_ABORT = 2, 4, 6, 7
NOT_DICOM = b"no data set at all, of " + NAME.encode() + b" " + PATIENT_ID.encode() + bytes(2000)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with imaging_up(tmp_path_factory.mktemp("bad-input"), "--revisioning-delay", "3600") as running:
        yield running
        assert_no_patient_in_logs(running)  # here, so that it covers every test, whichever ran


def assert_no_patient_in_logs(stack: Stack) -> None:
    logs = [stack.log, *(stack.ready_file.parent / "data").rglob("*.log")]
    assert {"dicomweb.log", "dimse-ingestion.log", "dimse-proxy.log", "event-processor.log"} <= {p.name for p in logs}
    found = {
        (path.name, line)
        for path in logs
        for line in path.read_text(errors="replace").splitlines()
        if any(secret in line for secret in (NAME, NAME.split("^")[0], PATIENT_ID))
    }
    assert found == set()


def patient(**attributes: object) -> pydicom.Dataset:
    """A good instance with the name and id that no log may hold."""
    return instance(PatientName=NAME, PatientID=PATIENT_ID, **attributes)


@dataclass
class Check:
    """What a test says should have happened; ``log`` is a piece of the line in the service's log."""

    service: str
    log: str
    stored: list[pydicom.Dataset] = field(default_factory=list)


@contextmanager
def unharmed(stack: Stack, check: Check) -> Iterator[None]:
    """Around bad input: only ``check.stored`` is kept, the same processes run on, the log says why, and the next good
    instance is stored."""
    pids, rows, keys = stack.ready["pids"], manifest_rows(stack), objects(stack)
    log = stack.ready_file.parent / "data" / "logs" / f"{check.service}.log"
    read = log.stat().st_size
    yield
    until(lambda: check.log in log.read_bytes()[read:].decode(), 20, f"{check.log!r} in {log.name}")
    new = manifest_rows(stack).keys() - rows.keys()
    assert {sop for _, _, sop in new} == {str(one.SOPInstanceUID) for one in check.stored}
    assert len(objects(stack) - keys) == len(check.stored)
    for entrance in ENTRANCES:
        good = patient()
        with Modality(stack, entrance) as modality:
            assert modality.store(good) == 0
        until(lambda sop=str(good.SOPInstanceUID): any(sop == one[2] for one in manifest_rows(stack)))
    assert stack.ready["pids"] == pids


# C-STORE


async def associated(stack: Stack, entrance: str) -> RawPeer:
    address = stack.ready[entrance]
    peer = await RawPeer.connect(address["port"])
    context = ProposedContext(1, CTImageStorage, (ExplicitVRLittleEndian,))
    await peer.send(encode_request("BAD", address["ae_title"], [context], UserInformation(16384)))
    kind, _ = await peer.receive()
    assert kind == A_ASSOCIATE_AC
    return peer


async def answer(peer: RawPeer) -> CommandSet:
    """The C-STORE response; the association is released after it."""
    kind, body = await peer.receive()
    assert (kind, body[4:6]) == (P_DATA_TF, b"\x01\x03")
    await peer.send(RELEASE_RQ)
    assert (await peer.receive())[0] == A_RELEASE_RP
    await peer.close()
    return CommandSet.decode(body[6:])


async def stored(stack: Stack, entrance: str, command: CommandSet, data: bytes) -> CommandSet:
    peer = await associated(stack, entrance)
    await peer.send(encode_message(1, command, data, 16384))
    return await answer(peer)


def log_of(entrance: str) -> str:
    return entrance.replace("_", "-")


@pytest.mark.parametrize("entrance", ENTRANCES)
async def test_truncated_pdu(stack: Stack, entrance: str) -> None:
    bad = patient()
    message = encode_message(1, store_request(CTImageStorage, bad.SOPInstanceUID), encoded(bad), 16384)
    with unharmed(stack, Check(log_of(entrance), "association lost")):
        peer = await associated(stack, entrance)
        await peer.send(message[:-40])
        await peer.close()


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize(
    ("header", "reason", "why"),
    [
        (struct.pack(">BxI", P_DATA_TF, 1 << 30), 6, "P-DATA-TF of 1073741824 bytes"),
        (struct.pack(">BxI", 0x55, 64), 1, "PDU type 55H is not of PS3.8"),
        (struct.pack(">BxI", A_ASSOCIATE_AC, 64), 2, "A_ASSOCIATE_AC while established"),
    ],
    ids=["oversized", "unknown type", "unexpected type"],
)
async def test_wrong_pdu_is_aborted(stack: Stack, entrance: str, header: bytes, reason: int, why: str) -> None:
    with unharmed(stack, Check(log_of(entrance), why)):
        peer = await associated(stack, entrance)
        await peer.send(header + NOT_DICOM)
        assert await peer.receive() == (A_ABORT, bytes((0, 0, 2, reason)))  # PS3.8 table 9-26
        await peer.close()


@pytest.mark.parametrize("entrance", ENTRANCES)
async def test_c_store_without_a_data_set(stack: Stack, entrance: str) -> None:
    command = store_request(CTImageStorage, generate_uid())
    command = CommandSet({**command.elements, COMMAND_DATA_SET_TYPE: 0x0101})
    with unharmed(stack, Check(log_of(entrance), "C-STORE without a data set")):
        peer = await associated(stack, entrance)
        await peer.send(encode_message(1, command, None, 16384))
        response = await answer(peer)
        assert response.status == 0xC000
        assert response.text(ERROR_COMMENT) == "C-STORE without a data set"


def mismatched() -> tuple[CommandSet, bytes, int, str]:
    bad = patient()
    command = store_request(CTImageStorage, generate_uid())
    return command, encoded(bad), 0xA900, f"SOPInstanceUID {bad.SOPInstanceUID} of the data set is not the request's"


def not_dicom() -> tuple[CommandSet, bytes, int, str]:
    return store_request(CTImageStorage, generate_uid()), NOT_DICOM, 0xC000, "end of the data set"


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("bad", [mismatched, not_dicom])
async def test_wrong_data_set_is_refused(
    stack: Stack, entrance: str, bad: Callable[[], tuple[CommandSet, bytes, int, str]]
) -> None:
    command, data, status, why = bad()
    with unharmed(stack, Check(log_of(entrance), why)):
        response = await stored(stack, entrance, command, data)
        assert response.status == status  # PS3.4 table B.2-1
        assert response.text(ERROR_COMMENT)


async def test_what_only_the_ingestion_refuses_is_a_dead_letter_of_the_durable_proxy(stack: Stack) -> None:
    bad = patient()
    del bad.StudyInstanceUID
    command, data = store_request(CTImageStorage, bad.SOPInstanceUID), encoded(bad)
    with unharmed(stack, Check("dimse-ingestion", "StudyInstanceUID")):
        # Another target than our ingestion may store an instance without a study: the proxy passes it on.
        assert (await stored(stack, "dimse_proxy", command, data)).status == 0
        letter = await buried(stack, command.sop_instance_uid)
        assert (letter.error, letter.size, letter.calling_ae_title) == ("MissingIdentifier", len(data), "BAD")


async def buried(stack: Stack, sop_instance_uid: str) -> RelayDeadLetter:
    client = await nats.connect(stack.ready["nats"])
    try:
        async with asyncio.timeout(60):
            while True:
                async for letter in list_relay_dead_letters(client, "DIMSE", "B"):
                    if letter.sop_instance_uid == sop_instance_uid:
                        return letter
                await asyncio.sleep(0.1)
    finally:
        await client.close()


# STOW-RS

PART = b"\r\n--b\r\nContent-Type: application/dicom\r\n\r\n"
END = b"\r\n--b--\r\n"
RELATED = 'multipart/related; type="application/dicom"'


async def post(stack: Stack, body: bytes, content_type: str = f"{RELATED}; boundary=b") -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as client:
        headers = {"Content-Type": content_type, "Accept": "application/dicom+json"}
        return await client.post(f"{stack.url('stow')}/studies", content=body, headers=headers)


def failure_reasons(document: dict[str, Any]) -> list[int]:
    return [item["00081197"]["Value"][0] for item in document["00081198"]["Value"]]


def broken_meta() -> bytes:
    """A Part 10 file whose first meta element says that it is longer than the file."""
    file = part10(patient())
    return file[:132] + element(0x00020001, b"OB", b"\0\1", length=1 << 19) + file[158:]


@pytest.mark.parametrize(
    ("part", "why"),
    [(broken_meta(), "broken file meta header"), (NOT_DICOM, "neither a DICOM file nor a data set")],
    ids=["broken meta header", "not DICOM"],
)
async def test_bad_part_beside_good_ones(stack: Stack, part: bytes, why: str) -> None:
    good = [patient(), patient()]
    with unharmed(stack, Check("dicomweb", why, good)):
        response = await post(stack, PART + part10(good[0]) + PART + part + PART + part10(good[1]) + END)
        assert response.status_code == 202  # PS3.18 table 10.5.3-1
        assert failure_reasons(response.json()) == [0xC000]
        references = response.json()["00081199"]["Value"]
        assert {item["00081155"]["Value"][0] for item in references} == {str(one.SOPInstanceUID) for one in good}
    with unharmed(stack, Check("dicomweb", why)):
        response = await post(stack, PART + part + END)
        assert response.status_code == 409
        assert failure_reasons(response.json()) == [0xC000]


async def test_multipart_without_boundary(stack: Stack) -> None:
    with unharmed(stack, Check("dicomweb", "no boundary")):
        response = await post(stack, PART + part10(patient()) + END, RELATED)
        assert response.status_code == 400
        assert "boundary" in response.json()["detail"]


async def test_multipart_cut_in_the_middle(stack: Stack) -> None:
    whole = patient()
    with unharmed(stack, Check("dicomweb", "cut before the final boundary", [whole])):
        response = await post(stack, PART + part10(whole) + PART + part10(patient())[:-20])
        assert response.status_code == 400
        assert "instances stored before that: 1" in response.json()["detail"]


async def test_connection_lost_in_the_middle_of_a_part(stack: Stack) -> None:
    body = PART + part10(patient())
    with unharmed(stack, Check("dicomweb", "connection lost while storing")):
        peer = await RawPeer.connect(httpx.URL(stack.url("stow")).port)
        head = f"POST /stow-rs/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {RELATED}; boundary=b\r\n"
        await peer.send(f"{head}Content-Length: {len(body) + 100}\r\n\r\n".encode() + body)
        await peer.close()


# QIDO-RS


@pytest.mark.parametrize(
    ("parameter", "value", "why"),
    [
        ("NoSuchAttribute", "1", "neither a parameter of a search nor a DICOM attribute"),
        ("StudyDate", "20241345", "StudyDate"),
        ("StudyDate", "yesterday", "StudyDate"),
        ("StudyDate", "20240101-20240102-20240103", "StudyDate"),
        ("PatientBirthDate", NAME, "PatientBirthDate"),
        ("limit", "many", "limit is not a whole number"),
    ],
)
async def test_unusable_search(stack: Stack, parameter: str, value: str, why: str) -> None:
    with unharmed(stack, Check("dicomweb", why)):
        async with httpx.AsyncClient() as client:
            parameters = {"PatientName": NAME, "PatientID": PATIENT_ID, parameter: value}
            response = await client.get(f"{stack.url('dicomweb')}/studies", params=parameters)
        assert response.status_code == 400
        assert parameter in response.json()["detail"]


async def test_search_for_an_attribute_that_is_not_recorded_is_warned_of(stack: Stack) -> None:
    async with httpx.AsyncClient() as client:
        parameters = {"StudyInstanceUID": generate_uid(), "KVP": "5"}
        response = await client.get(f"{stack.url('dicomweb')}/studies", params=parameters)
    assert (response.status_code, response.json()) == (200, [])
    assert "KVP" in response.headers["Warning"]  # PS3.18 section 8.3.4.1


# CloudEvents

CLOUD_EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "test", "content-type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "body", "why"),
    [
        ({**CLOUD_EVENT, "ce-type": "NoSuchEvent"}, b'{"patient":"%s"}' % NAME.encode(), "NoSuchEvent"),
        ({**CLOUD_EVENT, "ce-type": "ImageStoredEvent"}, b'{"patient":"%s",' % NAME.encode(), "is not JSON"),
        ({"content-type": "application/cloudevents+json"}, b'{"id":"%s' % NAME.encode(), "is not JSON"),
        ({**CLOUD_EVENT, "ce-type": "ImageStoredEvent"}, b'{"image":{},"store":{}}', "image.elements"),
        ({"content-type": "application/json"}, b"{}", "not a CloudEvent"),
    ],
    ids=["unknown type", "data not JSON", "envelope not JSON", "data incomplete", "no CloudEvent"],
)
async def test_event_that_cannot_be_taken(stack: Stack, headers: dict[str, str], body: bytes, why: str) -> None:
    with unharmed(stack, Check("event-processor", why)):
        async with httpx.AsyncClient() as client:
            response = await client.post(stack.ready["events"], content=body, headers=headers)
        assert response.status_code == 400
        assert why in response.json()["detail"]


async def test_event_that_comes_twice_is_recorded_and_announced_once(stack: Stack) -> None:
    good = patient()
    with Modality(stack, "dimse_ingestion") as modality:
        assert modality.store(good) == 0
    await until_async(lambda: announcements(stack, good), lambda events: len(events) == 2)
    (headers, body) = next(event for event in await announcements(stack, good) if is_image_stored(event))
    rows, keys = manifest_rows(stack), objects(stack)
    names = {name: value for name, value in headers.items() if name.startswith("ce-")}
    async with httpx.AsyncClient() as client:
        for _ in range(2):
            response = await client.post(
                stack.ready["events"], content=body, headers={**names, "content-type": "application/json"}
            )
            assert response.status_code == 204
    time.sleep(1)  # what should not come has had time to
    assert len(await announcements(stack, good)) == 2
    assert (manifest_rows(stack), objects(stack)) == (rows, keys)


Event = tuple[dict[str, str], bytes]


def is_image_stored(event: Event) -> bool:
    return event[0]["ce-type"] == "ImageStoredEvent"


async def announcements(stack: Stack, data_set: pydicom.Dataset) -> list[Event]:
    """Events of the log that name the instance."""
    uid, found = str(data_set.SOPInstanceUID).encode(), []
    client = await nats.connect(stack.ready["nats"])
    try:
        js = client.jetstream()
        stream = next(i for i in await js.streams_info() if i.config.name.endswith("-events"))
        for sequence in range(stream.state.first_seq, stream.state.last_seq + 1):
            message = await js.get_msg(stream.config.name, sequence)
            if uid in (message.data or b""):
                found.append((message.headers or {}, message.data or b""))
    finally:
        await client.close()
    return found


async def until_async(ask: Callable[[], Awaitable[Any]], enough: Callable[[Any], bool]) -> None:
    async with asyncio.timeout(60):
        while not enough(await ask()):
            await asyncio.sleep(0.1)


def test_the_secrets_would_be_found(stack: Stack, tmp_path: Path) -> None:
    """The search of the logs that ends this module finds what it looks for."""
    folder = tmp_path / "data" / "logs"
    folder.mkdir(parents=True)
    for name in ("dicomweb", "dimse-ingestion", "dimse-proxy", "event-processor"):
        (folder / f"{name}.log").write_text(json.dumps({"event": f"patient {NAME}"}))
    (tmp_path / "up.log").touch()
    with pytest.raises(AssertionError):
        assert_no_patient_in_logs(Stack(stack.process, tmp_path / "ready.json", tmp_path / "up.log"))
