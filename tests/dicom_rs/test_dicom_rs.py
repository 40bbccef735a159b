"""dicom-rs's tools as peers, a second family besides DCMTK: ``make test-dicom-rs`` builds them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from imaging_services.adapters.dimse.acceptor import Listener, listen
from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.adapters.dimse.scu import association, echo
from imaging_services.adapters.dimse.users import Users
from imaging_services.domain.dicom.command_set import store_request
from imaging_services.domain.dicom.dimse import Negotiated, ProposedContext
from imaging_services.domain.errors import BackendUnavailable
from support.dcmtk import written
from support.dicom_files import data_set_of
from support.dimse import CT, EXPLICIT, STUDY_ROOT_FIND, Recorder
from support.instances import instance
from support.ports import a_free_port

PROGRAMS = Path(__file__).parents[2] / "build" / "dicom-rs" / "bin"


def program(name: str) -> str:
    path = PROGRAMS / f"dicom-{name}"
    if not path.exists():
        pytest.fail(f"{path} is missing: `make test-dicom-rs` builds it", pytrace=False)
    return str(path)


async def run(name: str, *arguments: object) -> tuple[int, str]:
    """Exit code and output."""
    process = await asyncio.create_subprocess_exec(
        program(name), *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, output.decode(errors="replace")


@pytest.fixture
async def handler() -> Recorder:
    return Recorder()


@pytest.fixture
async def listener(handler: Recorder) -> AsyncIterator[Listener]:
    listener = await listen(handler, "127.0.0.1", 0)
    yield listener
    await listener.close(5)


def at(listener: Listener) -> str:
    return f"ARCHIVE@127.0.0.1:{listener.port}"


async def test_echoscu(handler: Recorder, listener: Listener) -> None:
    code, output = await run("echoscu", at(listener))
    assert code == 0, output
    assert handler.requests[0].called_ae_title == "ARCHIVE"
    assert len(handler.served) == 1


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_storescu(handler: Recorder, listener: Listener, tmp_path: Path, concurrency: int) -> None:
    files = [written(tmp_path / f"{number}.dcm", instance()) for number in range(6)]
    options = ["--fail-first", "--never-transcode", "-c", concurrency]
    code, output = await run("storescu", *options, at(listener), *files)
    assert code == 0, output
    assert sorted(data for _, data in handler.stored) == sorted(data_set_of(file.read_bytes()) for file in files)


async def test_storescu_says_who_it_is(handler: Recorder, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("anna:secret\n")
    file = written(tmp_path / "one.dcm", instance())
    listener = await listen(handler, "127.0.0.1", 0, users=Users(users))
    code, output = await run("storescu", "--username", "anna", "--password", "secret", at(listener), file)
    assert code == 0, output
    code, _ = await run("storescu", "--username", "anna", "--password", "wrong", at(listener), file)
    assert code != 0
    assert len(handler.stored) == 1
    await listener.close(5)


async def test_findscu(handler: Recorder, listener: Listener) -> None:
    handler.accept = lambda request: Negotiated({one.context_id: EXPLICIT for one in request.contexts})
    handler.matches = [b"\x08\x00\x52\x00CS\x06\x00STUDY \x10\x00\x20\x00LO\x04\x00P42 "] * 3
    code, output = await run("findscu", "-S", "-q", "QueryRetrieveLevel=STUDY", "-q", "PatientID", at(listener))
    assert code == 0, output
    assert output.count("P42") == 3
    assert [one.context.abstract_syntax for one in handler.served] == [STUDY_ROOT_FIND]


@pytest.mark.parametrize("options", [[], ["--non-blocking"]])
async def test_storescp(tmp_path: Path, options: list[str]) -> None:
    port, titles = a_free_port(), {"calling_ae_title": "IMAGING", "called_ae_title": "STORE-SCP"}
    data = data_set_of(written(tmp_path / "one.dcm", instance()).read_bytes())
    folder = tmp_path / "received"
    folder.mkdir()
    process = await asyncio.create_subprocess_exec(
        program("storescp"), *options, "-p", str(port), "-o", str(folder), stdout=asyncio.subprocess.DEVNULL
    )
    peer = RemoteAE("127.0.0.1", port, operations=4)
    try:
        async with asyncio.timeout(60):
            while not await answers(peer, titles):
                await asyncio.sleep(0.02)
        contexts = (ProposedContext(1, CT, (EXPLICIT,)),)
        async with association(peer, **titles, contexts=contexts) as requestor:
            for number in range(3):
                command = store_request(CT, f"1.2.{number}", message_id=number + 1)
                assert (await requestor.store(1, command, data)).status == 0
        assert [data_set_of(file.read_bytes()) for file in folder.iterdir()] == [data] * 3
    finally:
        process.terminate()
        await process.wait()


async def answers(peer: RemoteAE, titles: dict[str, str]) -> bool:
    try:
        return await echo(peer, **titles) == 0
    except BackendUnavailable:
        return False
