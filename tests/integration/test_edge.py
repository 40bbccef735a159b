"""The edge: a proxy with an own NATS server, which keeps images while the WAN is away."""

import asyncio
import contextlib
import secrets
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from nats.errors import NoRespondersError

from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.relay_streams import ensure_relay
from imaging_services.adapters.nats.settings import NatsSettings
from imaging_services.adapters.nats.types import NatsClient
from imaging_services.apps.dimse_proxy.settings import Settings
from imaging_services.cli.edge_checks import edge_checks
from imaging_services.domain.relay.subjects import RelaySubjects
from imaging_services.local.leaf_node import LeafNode
from imaging_services.local.ports import free_ports
from imaging_services.local.processes import start
from imaging_services.local.readiness import http_json
from support.edge import Edge, a_hub, a_modality
from support.instances import encoded, instance
from support.nats_process import NatsProcess
from support.relay import Remembering, listening, nats_relay, relay_settings, until
from support.tls import Authority, an_authority
from support.wires import Wire

pytestmark = pytest.mark.timeout(240)

OUT_OF_RESOURCES = 0xA700
SPOOL = 2 * 1024**2
AT_WORK = 4


def an_instance(size: int = 20_000) -> tuple[str, bytes]:
    """UID and data set of a CT."""
    dataset = instance(PixelData=secrets.token_bytes(size))
    return str(dataset.SOPInstanceUID), encoded(dataset)


async def send(edge: Edge, count: int, size: int = 20_000) -> list[str]:
    """Instances of one association that were answered with success, up to the first that was not."""
    accepted = []
    async with a_modality(edge) as modality:
        for _ in range(count):
            uid, data = an_instance(size)
            if await modality.store(uid, data) != 0:
                break
            accepted.append(uid)
    return accepted


@asynccontextmanager
async def the_cloud(url: str, root: str, handler: Remembering) -> AsyncIterator[None]:
    """Empties whatever edges announce themselves."""
    settings = relay_settings(url, "B", root, receive_domain="*", max_in_flight=AT_WORK)
    async with nats_relay(settings) as relay, listening(relay, handler):
        yield


async def test_nothing_is_lost_while_the_wan_is_away_whatever_dies_and_a_full_spool_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cloud = f"EDGE-{uuid.uuid4().hex[:8]}", Remembering()
    with a_hub(tmp_path / "hub") as (hub, leaf_nodes), Wire(lambda: leaf_nodes) as wan:
        wan.refuse()
        edge = Edge(tmp_path / "edge", wan.port, root, "hospital-1", EDGE_SPOOL_BYTES=SPOOL)
        try:
            edge.start()
            accepted = await without_the_wan(edge)
            accepted += await killed_and_started_again(edge)
            accepted += await filled(edge)
            async with the_cloud(hub.url, root, cloud):
                wan.mend()
                await until(lambda: edge.metric("spool_open") == 1)
                accepted += await send(edge, 2, 300_000)
                await until(lambda: len(cloud.stored) >= len(accepted))
                await until(lambda: edge.metric("spool_instances") == 0)
                await until(lambda: edge.metric("hub_connected") == 1)
                await doctor_is_content(edge, monkeypatch)
            assert edge.stop() == 0
        finally:
            edge.close()
    stored = [uid for uid, _ in cloud.stored]
    assert sorted(stored) == sorted(accepted)
    # the oldest first; as several are at work at a time, some may end before their neighbours
    assert all(abs(place - accepted.index(uid)) <= AT_WORK for place, uid in enumerate(stored))


async def without_the_wan(edge: Edge) -> list[str]:
    """An edge that has never seen its hub answers C-ECHO, keeps images, and says no to what only the hub can do."""
    async with a_modality(edge) as modality:
        assert await modality.echo() == 0
        assert await modality.find() not in (0, 0xFF00)
    accepted = await send(edge, 4)
    assert len(accepted) == 4
    return accepted


async def killed_and_started_again(edge: Edge) -> list[str]:
    """SIGKILL for its server, for its proxy, for all of it at once; it goes on with what it had accepted."""
    await asyncio.to_thread(edge.kill, "nats-server")
    accepted = await insist(edge)
    await asyncio.to_thread(edge.kill, "imaging_services.cli run")
    await asyncio.to_thread(edge.until_ready)
    accepted += await send(edge, 3)
    await asyncio.to_thread(edge.kill_all)
    await asyncio.to_thread(edge.start)
    await until(lambda: edge.metric("spool_instances") == 8)
    assert edge.metric("spool_oldest_seconds") > 0
    return accepted


async def insist(edge: Edge) -> list[str]:
    """As a modality does that is answered A700H for a while: the same instance again."""
    uid, data = an_instance()
    async with asyncio.timeout(60), a_modality(edge) as modality:
        while await modality.store(uid, data) != 0:
            await asyncio.sleep(0.1)
    return [uid]


async def filled(edge: Edge) -> list[str]:
    """Instances until the spool is full: then C-STORE gets A700H, and C-ECHO is still answered."""
    accepted = await send(edge, 50, 300_000)
    assert 3 <= len(accepted) <= 7
    async with a_modality(edge) as modality:
        assert await modality.store(*an_instance()) == OUT_OF_RESOURCES
        assert await modality.echo() == 0
    await until(lambda: edge.metric("spool_bytes") > SPOOL - 300_000)
    status = await asyncio.to_thread(edge.status)
    assert (status["takes_instances"], status["limit_bytes"], status["refused"]) == (False, SPOOL, 2)
    assert status["instances"] == 8 + len(accepted)
    assert (status["hub_connected"], status["drained_in_seconds"]) == (False, None)
    return accepted


async def doctor_is_content(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in edge.environment.items():
        monkeypatch.setenv(name, value)
    sentences = {what: await check() for what, check in edge_checks()}
    assert "NATS 2." in sentences[f"edge hub {edge.environment['EDGE_HUB_URL']}"]
    assert "round trip" in sentences["edge connection"]
    assert sentences["edge spool"].startswith(edge.environment["EDGE_SPOOL_DIR"])


@asynccontextmanager
async def a_leaf_node(folder: Path, hub_port: int, root: str, domain: str, **more: object) -> AsyncIterator[str]:
    """The server of an edge without its proxy; its URL. What it says is in ``log`` of its folder."""
    port, monitoring = free_ports(2)
    folder.mkdir()
    given = {"EDGE_HUB_URL": f"nats-leaf://127.0.0.1:{hub_port}", "EDGE_MONITORING_PORT": monitoring, **more}
    node = LeafNode(
        Settings(
            EDGE=True,
            EDGE_DOMAIN=domain,
            EDGE_SPOOL_DIR=folder,
            EDGE_NATS_PORT=port,
            DIMSE_NATS_SUBJECT_ROOT=root,
            **given,
        )
    )
    child = await asyncio.to_thread(start, replace(node.program(), log_file=folder / "log"))
    try:
        yield node.url
    finally:
        await asyncio.to_thread(child.stop)


@pytest.fixture
def guarded_hub(tmp_path: Path) -> Iterator[tuple[int, Authority]]:
    """A hub's port for leaf nodes, which asks for TLS, a user and a password, and who vouches for it."""
    (leaf_nodes,), authority = free_ports(1), an_authority(tmp_path, "hub")
    tls = f'tls {{ cert_file: "{authority.certificate}", key_file: "{authority.key}" }}'
    who = 'authorization { users: [ { user: hospital-1, password: "a/secret:with@signs" } ] }'
    (tmp_path / "hub").mkdir()
    more = f'leafnodes {{ listen: "127.0.0.1:{leaf_nodes}", {tls}, {who} }}\n'
    with NatsProcess(tmp_path / "hub", more=more, domain="hub"):
        yield leaf_nodes, authority


def guarded(port: int, authority: Authority, **more: object) -> dict[str, object]:
    return {
        "EDGE_HUB_URL": f"tls://127.0.0.1:{port}",
        "EDGE_HUB_CA_FILE": authority.ca_file,
        "EDGE_HUB_USER": "hospital-1",
        "EDGE_HUB_PASSWORD": "a/secret:with@signs",
        **more,
    }


async def test_an_edge_joins_its_hub_by_tls_with_user_and_password(guarded_hub, tmp_path: Path) -> None:
    (monitoring,) = free_ports(1)
    given = guarded(*guarded_hub, EDGE_MONITORING_PORT=monitoring)
    async with a_leaf_node(tmp_path / "edge", 0, "EDGE", "one", **given):
        await until(lambda: bool((http_json(f"http://127.0.0.1:{monitoring}/leafz") or {}).get("leafs")))


@pytest.mark.parametrize("wrong", ["password", "authority"])
async def test_a_hub_that_does_not_match_is_named_in_the_log_and_instances_are_kept(
    guarded_hub, tmp_path: Path, wrong: str
) -> None:
    port, authority = guarded_hub
    more, sentence = {
        "password": ({"EDGE_HUB_PASSWORD": "another"}, "Authorization Violation"),
        "authority": ({"EDGE_HUB_CA_FILE": an_authority(tmp_path, "stranger").ca_file}, "unknown authority"),
    }[wrong]
    log, names = tmp_path / "edge" / "log", RelaySubjects("EDGE", "B")
    async with a_leaf_node(tmp_path / "edge", 0, "EDGE", "one", **guarded(port, authority, **more)) as url:
        await until(lambda: sentence in log.read_text())
        async with connect(NatsSettings(url=url, subject_root="EDGE")) as client:
            await ensure_relay(client.jetstream(), names, 0, 1)
            assert (await client.jetstream().publish(names.store("1"), b"an instance")).seq == 1
    assert "another" not in log.read_text()


async def test_edges_and_hub_each_keep_their_own_and_acknowledgements_do_not_mix(tmp_path: Path) -> None:
    root = f"EDGE-{uuid.uuid4().hex[:8]}"
    subjects = RelaySubjects(root, "B")
    with a_hub(tmp_path / "hub") as (hub, leaf_nodes):
        async with (
            a_leaf_node(tmp_path / "one", leaf_nodes, root, "one") as one,
            a_leaf_node(tmp_path / "two", leaf_nodes, root, "two") as two,
            connect(NatsSettings(url=hub.url, subject_root=root)) as at_hub,
            connect(NatsSettings(url=one, subject_root=root)) as at_one,
            connect(NatsSettings(url=two, subject_root=root)) as at_two,
        ):
            clients = (at_hub, at_one, at_two)
            for client in clients:
                await ensure_relay(client.jetstream(), subjects, 0, 1)

            async def answer(message) -> None:
                await message.respond(b"final response")

            await at_hub.subscribe(subjects.request, queue="relay", cb=answer)
            # Subscriptions cross in order: who sees this one would see those of the hub's streams, too.
            assert {await asked(client, subjects.request) for client in clients} == {b"final response"}
            for domain in ("one", "two"):
                await asked(at_hub, f"$JS.{domain}.API.INFO")
            for count, client in enumerate(clients, 1):
                for number in range(count):
                    await client.jetstream().publish(subjects.store(f"{count}-{number}"), b"an instance")

            async def waiting() -> list[int]:
                infos = [await client.jetstream().stream_info(subjects.stream) for client in clients]
                return [info.state.messages for info in infos]

            assert await waiting() == [1, 2, 3]
            pulls = [
                await at_hub.jetstream(domain=domain).pull_subscribe("", durable="relay", stream=subjects.stream)
                for domain in ("one", "two")
            ]
            of_one, of_two = [await pull.fetch(count, timeout=20) for pull, count in zip(pulls, (2, 3), strict=True)]
            assert [message.subject for message in of_one] == [subjects.store("2-0"), subjects.store("2-1")]
            for message in of_one:
                await message.ack_sync(timeout=20)
            await of_two[2].ack_sync(timeout=20)
            assert await waiting() == [1, 0, 2]


async def asked(client: NatsClient, subject: str) -> bytes:
    """The answer to a request, once its server knows that somebody listens at the other end of a leaf connection."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(NoRespondersError):
                return (await client.request(subject, b"", timeout=20)).data
            await asyncio.sleep(0.05)
