"""TLS with DCMTK and pynetdicom, both roles, certificates verified and changed while associations last."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from structlog.testing import capture_logs

from imaging_services.adapters.dimse.acceptor import Listener, listen
from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.adapters.dimse.scu import association, echo
from imaging_services.adapters.dimse.tls_settings import ListenerTlsVariables, TargetTlsVariables
from imaging_services.domain.dicom.command_set import CommandField, request, store_request
from imaging_services.domain.dicom.dimse import VERIFICATION, ProposedContext
from imaging_services.domain.errors import BackendUnavailable
from imaging_services.local.ports import free_ports
from support.dcmtk import ENVIRONMENT
from support.dimse import CT, EXPLICIT, Recorder
from support.peers import dcmtk_program
from support.tls import Authority, an_authority, as_pkcs12

TITLES = {"calling_ae_title": "SCU", "called_ae_title": "SCP"}
LOOK = 0.05


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return an_authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return an_authority(tmp_path_factory.mktemp("other"))


def pem(authority: Authority) -> dict[str, Any]:
    return {
        "DIMSE_TLS_CERT_FILE": authority.certificate,
        "DIMSE_TLS_KEY_FILE": authority.key,
        "DIMSE_TLS_CA_FILE": authority.ca_file,
    }


@asynccontextmanager
async def listening(variables: dict[str, Any], handler: Recorder | None = None) -> AsyncIterator[Listener]:
    tls = ListenerTlsVariables(DIMSE_TLS_ENABLED=True, **variables).listener_tls()
    listener = await listen(handler or Recorder(), "127.0.0.1", 0, tls=tls, tls_look_seconds=LOOK)
    try:
        yield listener
    finally:
        await listener.close(5)


def calling(port: int, trusted: Authority, own: Authority | None, **more: Any) -> RemoteAE:
    variables = TargetTlsVariables(
        DIMSE_TARGET_TLS_CA_FILE=trusted.ca_file,
        DIMSE_TARGET_TLS_CERT_FILE=own.certificate if own else None,
        DIMSE_TARGET_TLS_KEY_FILE=own.key if own else None,
        **more,
    )
    return RemoteAE("127.0.0.1", port, tls=variables.client_tls())


async def run(program: str, *arguments: object) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        dcmtk_program(program),
        *map(str, arguments),
        env=ENVIRONMENT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, output.decode(errors="replace")


def dcmtk_tls(authority: Authority, trusted: Authority) -> list[object]:
    return ["+tls", authority.key, authority.certificate, "+cf", trusted.ca_file]


async def test_dcmtk_calls_us_with_a_certificate(ours: Authority, other: Authority) -> None:
    keystore = as_pkcs12(ours.certificate, ours.key, "secret")
    pkcs12 = {"DIMSE_TLS_KEYSTORE": keystore, "DIMSE_TLS_CA_FILE": ours.ca_file}
    for variables in (pem(ours), pkcs12):
        async with listening(variables) as listener:
            assert await run("echoscu", *dcmtk_tls(ours, ours), "127.0.0.1", listener.port) == (0, "")
            with capture_logs() as logs:
                code, _ = await run("echoscu", *dcmtk_tls(other, ours), "127.0.0.1", listener.port)
            assert code != 0
            assert [one["side"] for one in logs if one["event"] == "TLS handshake failed"] == ["listener"]
            assert (await run("echoscu", "+tla", "+cf", ours.ca_file, "127.0.0.1", listener.port))[0] != 0
            assert (await run("echoscu", "127.0.0.1", listener.port))[0] != 0


async def test_clients_without_certificate_where_that_is_allowed(ours: Authority) -> None:
    async with listening({**pem(ours), "DIMSE_TLS_CLIENT_AUTH": "none"}) as listener:
        assert await echo(calling(listener.port, ours, None), **TITLES) == 0
    async with listening(pem(ours)) as listener:
        with pytest.raises(BackendUnavailable):
            await echo(calling(listener.port, ours, None), **TITLES)
        assert await echo(calling(listener.port, ours, ours), **TITLES) == 0


async def test_old_versions_get_no_answer(ours: Authority) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(ours.ca_file)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    async with listening({**pem(ours), "DIMSE_TLS_CLIENT_AUTH": "none"}) as listener:
        with capture_logs() as logs, pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", listener.port, ssl=old)
        assert "UNSUPPORTED_PROTOCOL" in [one.get("why") for one in logs]


async def test_the_name_of_the_target_counts(ours: Authority, other: Authority) -> None:
    async with listening({**pem(ours), "DIMSE_TLS_CLIENT_AUTH": "none"}) as listener:
        by_name = calling(listener.port, ours, None)
        by_name.host = "localhost"  # the certificate names 127.0.0.1
        with pytest.raises(BackendUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await echo(by_name, **TITLES)
        any_name = calling(listener.port, ours, None, DIMSE_TARGET_TLS_VERIFY="ca")
        any_name.host = "localhost"
        assert await echo(any_name, **TITLES) == 0
        with pytest.raises(BackendUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await echo(calling(listener.port, other, None), **TITLES)


async def test_dcmtk_stores_what_we_send(ours: Authority, tmp_path: Path) -> None:
    port = free_ports(1)[0]
    process = await asyncio.create_subprocess_exec(
        dcmtk_program("storescp"),
        *map(str, ["-od", tmp_path, "--bit-preserving", "+xa", *dcmtk_tls(ours, ours), port]),
        env=ENVIRONMENT,
    )
    data = b"\x08\x00\x16\x00UI\x1a\x001.2.840.10008.5.1.4.1.1.2\0\x08\x00\x18\x00UI\x06\x001.2.3\0"
    data += b"\x10\x00\x20\x00LO\x02\x00P1\xe0\x7f\x10\x00OW\0\0" + (2**20).to_bytes(4, "little") + bytes(2**20)
    peer = calling(port, ours, ours)
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    assert await echo(peer, **TITLES) == 0
                    break
                except BackendUnavailable:
                    await asyncio.sleep(0.02)
        context = (ProposedContext(1, CT, (EXPLICIT,)),)
        async with association(peer, **TITLES, contexts=context) as requestor:
            assert (await requestor.store(1, store_request(CT, "1.2.3"), data)).status == 0
        [received] = tmp_path.iterdir()
        assert received.read_bytes().endswith(data)
    finally:
        process.terminate()
        await process.wait()


async def test_pynetdicom_calls_us(ours: Authority) -> None:
    context = ssl.create_default_context(cafile=ours.ca_file)
    context.load_cert_chain(ours.certificate, ours.key)

    def call(port: int) -> int:
        ae = AE("PYNET")
        ae.add_requested_context(VERIFICATION)
        association = ae.associate("127.0.0.1", port, tls_args=(context, "127.0.0.1"))
        assert association.is_established
        status = association.send_c_echo().Status
        association.release()
        return int(status)

    async with listening(pem(ours)) as listener:
        assert await asyncio.to_thread(call, listener.port) == 0


def swap(link: Path, folder: Path) -> None:
    """As Kubernetes changes the files of a Secret."""
    new = link.with_name("new")
    new.symlink_to(folder)
    os.replace(new, link)


async def test_new_certificates_without_an_association_lost(ours: Authority, other: Authority, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(ours.ca_file.parent)
    files = Authority(*(link / path.name for path in (ours.ca_file, ours.certificate, ours.key)))
    contexts = (ProposedContext(1, VERIFICATION, (EXPLICIT,)),)
    async with listening(pem(files)) as listener:
        own = calling(listener.port, files, files)
        async with association(own, **TITLES, contexts=contexts) as old:
            swap(link, other.ca_file.parent)
            new = calling(listener.port, other, other)
            async with asyncio.timeout(60):
                while not await reached(new):
                    await asyncio.sleep(LOOK)
            assert await reached(own)  # its files have changed, too
            assert not await reached(calling(listener.port, ours, ours))
            message = request(CommandField.C_ECHO_RQ, VERIFICATION)
            assert [one.command.status async for one in old.request(1, message)] == [0]
            with capture_logs() as logs:
                swap(link, tmp_path)  # nothing is there
                while not any("not read again" in one["event"] for one in logs):
                    await asyncio.sleep(LOOK)
            assert await reached(new)


async def reached(peer: RemoteAE) -> bool:
    try:
        return await echo(peer, **TITLES) == 0
    except BackendUnavailable:
        return False
