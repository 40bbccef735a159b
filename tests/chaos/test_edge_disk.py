"""An edge whose disk becomes full: by what it keeps, and by what others write."""

import asyncio
import contextlib
import secrets
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from imaging_services.domain.errors import DeadlineExceeded
from support.disks import fill, small_disk
from support.edge import Edge, a_hub, a_modality
from support.instances import encoded, instance
from support.relay import Remembering, listening, nats_relay, relay_settings, until
from support.wires import Wire

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.timeout(300)]

ROOM, RESERVE = 96 << 20, 16 << 20
OUT_OF_RESOURCES = 0xA700


async def send(edge: Edge, most: int = 1000) -> tuple[list[str], int]:
    """Instances of a megabyte over one association: those answered with success, and the status of the next. No answer
    in time is none of success."""
    accepted: list[str] = []
    with contextlib.suppress(DeadlineExceeded):
        return await _send(edge, most, accepted)
    return accepted, OUT_OF_RESOURCES


async def _send(edge: Edge, most: int, accepted: list[str]) -> tuple[list[str], int]:
    async with a_modality(edge) as modality:
        while len(accepted) < most:
            dataset = instance(PixelData=secrets.token_bytes(1_000_000))
            status = await modality.store(str(dataset.SOPInstanceUID), encoded(dataset))
            if status != 0:
                return accepted, status
            accepted.append(str(dataset.SOPInstanceUID))
    return accepted, 0


async def insist(edge: Edge) -> list[str]:
    """As a modality does that is answered A700H for a while."""
    async with asyncio.timeout(120):
        while not (taken := (await send(edge, 1))[0]):
            await asyncio.sleep(0.2)
    return taken


@asynccontextmanager
async def the_cloud(url: str, root: str, cloud: Remembering) -> AsyncIterator[None]:
    async with nats_relay(relay_settings(url, "B", root, receive_domain="*")) as relay, listening(relay, cloud):
        yield


@pytest.mark.parametrize("writer", ["edge", "stranger"])
async def test_a_full_disk_refuses_images_and_loses_none(tmp_path: Path, writer: str) -> None:
    root, cloud, filler = f"EDGE-{uuid.uuid4().hex[:8]}", Remembering(), tmp_path / "disk" / "filler"
    with (
        small_disk(tmp_path / "disk", ROOM) as disk,
        a_hub(tmp_path / "hub") as (hub, leaf_nodes),
        Wire(lambda: leaf_nodes) as wan,
    ):
        wan.refuse()
        more = {"EDGE_SPOOL_DIR": disk, "EDGE_DISK_RESERVE_BYTES": RESERVE}
        edge = Edge(tmp_path / "edge", wan.port, root, "hospital-1", **more)
        try:
            edge.start()
            sending = asyncio.create_task(send(edge))
            await until(lambda: edge.metric("spooled_instances_total") > 5)
            if writer == "stranger":
                with filler.open("wb", buffering=0) as file:
                    fill(file.fileno(), disk)
            await until(lambda: edge.metric("spool_open") == 0)
            assert await send(edge) == ([], OUT_OF_RESOURCES)
            accepted = []
            if writer == "stranger":
                filler.unlink()  # some of what waits is on its way into a stream that takes nothing any more
                accepted += await insist(edge)
            async with the_cloud(hub.url, root, cloud):
                wan.mend()
                accepted += await insist(edge) + (await sending)[0]
                await until(lambda: edge.metric("spool_instances") == 0)
            assert edge.stop() == 0
        finally:
            edge.close()
    stored = [uid for uid, _ in cloud.stored]
    assert set(accepted) <= set(stored)
    assert len(stored) == len(set(stored))
