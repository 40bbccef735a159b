"""An association handler for tests that records what it gets, and a raw socket that speaks PDUs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from imaging_services.domain.dicom.command_set import CommandField
from imaging_services.domain.dicom.dimse import (
    Association,
    AssociationRequest,
    DimseRequest,
    DimseResponse,
    Negotiated,
    Rejection,
    Status,
    StoreAnswer,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
JPEG = "1.2.840.10008.1.2.4.70"
_SECONDS = 30.0  # only matters when a test fails


@dataclass
class Recorder:
    """Accepts what ``accept`` names (all by default), keeps every data set, finds ``matches``."""

    accept: Callable[[AssociationRequest], Negotiated | Rejection] | None = None
    error: Exception | None = None
    matches: list[bytes] = field(default_factory=list)
    endless: bool = False
    stop_after: int | None = None
    hold: asyncio.Event | None = None
    requests: list[AssociationRequest] = field(default_factory=list)
    stored: list[tuple[str, bytes]] = field(default_factory=list)
    served: list[DimseRequest] = field(default_factory=list)
    ends: list[bool] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    generators_closed: int = 0

    async def negotiate(self, request: AssociationRequest) -> Negotiated | Rejection:
        self.requests.append(request)
        if self.accept is not None:
            return self.accept(request)
        return Negotiated({context.context_id: context.transfer_syntaxes[0] for context in request.contexts})

    async def store(self, association: Association, request: DimseRequest) -> StoreAnswer:
        self.begun.set()
        assert request.data is not None
        if self.error is not None:
            raise self.error
        blocks: list[bytes] = []
        try:
            async for block in request.data:
                blocks.append(block)
                if self.stop_after is not None and sum(map(len, blocks)) >= self.stop_after:
                    return StoreAnswer(Status.OUT_OF_RESOURCES, "enough")
                if self.hold is not None:
                    await self.hold.wait()
        except Exception as error:
            self.failures.append(error)
            raise
        self.stored.append((request.command.sop_instance_uid, b"".join(blocks)))
        return StoreAnswer(Status.SUCCESS)

    async def serve(self, association: Association, request: DimseRequest) -> AsyncIterator[DimseResponse]:
        self.begun.set()
        self.served.append(request)
        try:
            if request.data is not None:
                async for _ in request.data:
                    pass
            if request.command.command_field == CommandField.C_FIND_RQ:
                for identifier in self.matches:
                    yield DimseResponse(request.command.response(Status.PENDING, has_data_set=True), identifier)
                while self.endless:
                    await asyncio.sleep(0.01)
                    identifier = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY "
                    yield DimseResponse(request.command.response(Status.PENDING, has_data_set=True), identifier)
            if self.error is not None:
                raise self.error
            yield DimseResponse(request.command.response(Status.SUCCESS))
        finally:
            self.generators_closed += 1

    async def closed(self, association: Association, clean: bool) -> None:
        self.ends.append(clean)


class RawPeer:
    """A TCP client that sends any bytes and reads PDUs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> "RawPeer":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> tuple[int, bytes]:
        """Type and body of the next PDU."""
        async with asyncio.timeout(_SECONDS):
            header = await self._reader.readexactly(6)
            return header[0], await self._reader.readexactly(int.from_bytes(header[2:], "big"))

    async def at_end(self) -> bool:
        """The other side has closed."""
        async with asyncio.timeout(_SECONDS):
            return await self._reader.read(1) == b""

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def eventually(condition: Callable[[], bool], seconds: float = _SECONDS) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
