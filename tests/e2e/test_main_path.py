"""Every real file through the whole path: proxy, NATS, ingestion, S3, manifest, DICOMweb, events."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import httpx
import nats
import pytest

from support.dicom_files import DicomFile, data_set_of, storable_files
from support.multipart import parts
from support.senders import send_undecoded
from support.stack import Stack, imaging_up

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with imaging_up(tmp_path_factory.mktemp("main-path"), "--revisioning-delay", "3600") as running:
        yield running


async def test_every_acknowledged_file_is_kept_found_and_announced_once(stack: Stack, tmp_path: Path) -> None:
    files = storable_files()
    assert len(files) >= 150

    statuses = await asyncio.to_thread(send_undecoded, files, stack.ready["dimse_proxy"], tmp_path)
    refused = {path.name: hex(status) for path, status in statuses.items() if status != 0}
    assert refused == {}

    kept = last_data_set(files)
    await until_recorded(stack, len(kept))
    await assert_retrieved_byte_for_byte(stack, kept)
    await assert_found_by_qido(stack, kept)
    expected = Counter({f.identity: n for f, n in distinct_data_sets(files)})
    assert await announced(stack, expected) == {"ImageStoredEvent": expected, "DicomAvailableEvent": expected}

    again = await asyncio.to_thread(send_undecoded, kept, stack.ready["dimse_proxy"], tmp_path)
    assert set(again.values()) == {0}
    await until_drained(stack)
    assert await announced(stack, expected) == {"ImageStoredEvent": expected, "DicomAvailableEvent": expected}
    await assert_retrieved_byte_for_byte(stack, kept)


def last_data_set(files: tuple[DicomFile, ...]) -> list[DicomFile]:
    """Of files that share an identity the one sent last: it is what the archive has to hold."""
    return list({file.identity: file for file in files}.values())


def distinct_data_sets(files: tuple[DicomFile, ...]) -> list[tuple[DicomFile, int]]:
    """Each identity with the number of different data sets sent for it, each of which is announced once."""
    seen: dict[tuple[str, str, str], set[tuple[str, bytes]]] = defaultdict(set)
    for file in files:
        seen[file.identity].add((file.transfer_syntax_uid, file.data_set))
    return [(file, len(seen[file.identity])) for file in last_data_set(files)]


async def until_recorded(stack: Stack, instances: int) -> None:
    async with httpx.AsyncClient() as client, asyncio.timeout(60):
        while (await client.get(f"{stack.url('query')}/counts")).json()["instances"] < instances:
            await asyncio.sleep(0.1)
    await until_drained(stack)


async def until_drained(stack: Stack) -> None:
    """Wait until the relay's work queues are empty and the processor has published all that it recorded."""
    client = await nats.connect(stack.ready["nats"])
    try:
        async with asyncio.timeout(60):
            while True:
                infos = await client.jetstream().streams_info()
                if not any(
                    i.state.messages for i in infos if "store" in i.config.name and not i.config.name.startswith("OBJ_")
                ):
                    break
                await asyncio.sleep(0.1)
    finally:
        await client.close()
    await asyncio.sleep(1)


async def assert_retrieved_byte_for_byte(stack: Stack, files: list[DicomFile]) -> None:
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    async with httpx.AsyncClient(timeout=30) as client:
        for file in files:
            response = await client.get(f"{stack.url('wado')}/{file.resource}", headers={"Accept": accept})
            assert response.status_code == 200, (file.path.name, response.text)
            (part,) = parts(response)
            assert data_set_of(part.body) == file.data_set, file.path.name
            assert f"transfer-syntax={file.transfer_syntax_uid}" in part.headers["content-type"].replace('"', "")


async def assert_found_by_qido(stack: Stack, files: list[DicomFile]) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        for file in files:
            search = (
                f"{stack.url('dicomweb')}/studies/{file.study_instance_uid}/series/{file.series_instance_uid}/instances"
            )
            response = await client.get(search, params={"SOPInstanceUID": file.sop_instance_uid})
            assert response.status_code == 200, file.path.name
            assert [match["00080018"]["Value"] for match in response.json()] == [[file.sop_instance_uid]]


async def announced(stack: Stack, expected: Counter[tuple[str, str, str]]) -> dict[str, Counter[tuple[str, str, str]]]:
    """What the event log holds, by event type and instance."""
    client = await nats.connect(stack.ready["nats"])
    found: dict[str, Counter[tuple[str, str, str]]] = {"ImageStoredEvent": Counter(), "DicomAvailableEvent": Counter()}
    try:
        context = client.jetstream()
        stream = next(i for i in await context.streams_info() if i.config.name.endswith("-events"))
        for sequence in range(stream.state.first_seq, stream.state.last_seq + 1):
            message = await context.get_msg(stream.config.name, sequence)
            event_type = (message.headers or {})["ce-type"]
            found[event_type][_identity(event_type, json.loads(message.data or b""))] += 1
    finally:
        await client.close()
    return found


def _identity(event_type: str, data: dict[str, object]) -> tuple[str, str, str]:
    if event_type == "DicomAvailableEvent":
        _, study, _, series, _, instance = str(data["endpoint"]).rsplit("/", 5)
        return study, series, instance
    values = {e["group"] + e["element"]: e["value"] for e in data["image"]["elements"]}  # type: ignore[index]
    return values["0020000D"], values["0020000E"], values["00080018"]
