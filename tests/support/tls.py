"""TLS for tests: throw-away authorities, and a front that ends TLS before a plain server."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"  # PostgreSQL's, chapter "Message Formats" of its manual


@dataclass(frozen=True)
class Authority:
    """A certificate authority made for one test. ``ca_file`` is what clients are to trust; ``certificate`` and ``key``
    belong to a server at 127.0.0.1."""

    ca_file: Path
    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """For a server that shows the certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context


def an_authority(folder: Path, name: str = "authority") -> Authority:
    """A new authority with its files in ``folder``."""
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    made = Authority(*(folder / f"{name}-{part}.pem" for part in ("ca", "certificate", "key")))
    authority.cert_pem.write_to_path(made.ca_file)
    server.private_key_pem.write_to_path(made.key)
    for block in server.cert_chain_pems:
        block.write_to_path(made.certificate, append=True)
    return made


@dataclass
class Front:
    """A port that speaks TLS. ``received`` counts the bytes that clients sent through it, without TLS's own;
    ``connections`` how many came, trusting or not."""

    port: int = 0
    received: int = 0
    connections: int = 0
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)


@asynccontextmanager
async def tls_front(authority: Authority, port: int, *, postgres: bool = False) -> AsyncIterator[Front]:
    """A front on 127.0.0.1 for the plain server on ``port``; ``postgres``: TLS is asked for first, in its protocol."""
    front, context = Front(), authority.server_context()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        front.connections += 1
        task = asyncio.current_task()
        assert task is not None
        front._tasks.add(task)
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            async with _aborted(writer):
                if postgres:
                    assert await reader.readexactly(8) == _SSL_REQUEST
                    writer.write(b"S")
                await writer.start_tls(context)
                await _forward(front, reader, writer, port)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    front.port = server.sockets[0].getsockname()[1]
    try:
        yield front
    finally:
        server.close()
        for task in front._tasks:
            task.cancel()
        await asyncio.gather(*front._tasks, return_exceptions=True)


@asynccontextmanager
async def _aborted(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """The connection is gone at the end, without a word to the peer."""
    try:
        yield
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _forward(front: Front, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)

    async def up() -> None:
        while block := await reader.read(65536):
            front.received += len(block)
            inner_writer.write(block)
            await inner_writer.drain()

    async def down() -> None:
        while block := await inner_reader.read(65536):
            writer.write(block)
            await writer.drain()

    async with _aborted(inner_writer):
        tasks = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def as_pkcs12(certificate: Path, key: Path, password: str) -> Path:
    """The two PEM files as one PKCS12 file beside them."""
    first, *chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    made = certificate.with_suffix(".p12")
    made.write_bytes(
        pkcs12.serialize_key_and_certificates(
            b"server",
            private,  # type: ignore[arg-type]  # trustme makes RSA and EC keys only
            first,
            chain,
            serialization.BestAvailableEncryption(password.encode()),
        )
    )
    return made
