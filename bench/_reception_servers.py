"""The servers of ``reception.py``, each run as a process of its own: prints its port, serves until killed."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator

import structlog
import uvloop

from imaging_services.adapters.dimse.acceptor import listen
from imaging_services.adapters.dimse.contexts import choose_contexts, load_capabilities
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.domain.dicom.dimse import (
    Association,
    AssociationRequest,
    DimseRequest,
    DimseResponse,
    Negotiated,
    Status,
    StoreAnswer,
)


class NullSink:
    """Takes every block and keeps none."""

    def __init__(self) -> None:
        self._capabilities = load_capabilities(None)

    async def negotiate(self, request: AssociationRequest) -> Negotiated:
        return choose_contexts(request.contexts, self._capabilities)

    async def store(self, association: Association, request: DimseRequest) -> StoreAnswer:
        assert request.data is not None
        async for _ in request.data:
            pass
        return StoreAnswer(Status.SUCCESS)

    async def serve(self, association: Association, request: DimseRequest) -> AsyncIterator[DimseResponse]:
        yield DimseResponse(request.command.response(Status.SUCCESS))

    async def closed(self, association: Association, clean: bool) -> None:
        return None


async def ours(max_pdu_length: int | None) -> None:
    """Our acceptor."""
    limits = AssociationLimits() if max_pdu_length is None else AssociationLimits(max_pdu_length=max_pdu_length)
    listener = await listen(NullSink(), "127.0.0.1", 0, limits)
    print(listener.port, flush=True)
    await asyncio.Event().wait()


def pynetdicom_server(max_pdu_length: int | None) -> None:
    """pynetdicom's AE with a handler that only answers."""
    from pynetdicom import AE, AllStoragePresentationContexts, evt

    ae = AE()
    ae.supported_contexts = AllStoragePresentationContexts
    ae.add_supported_context("1.2.840.10008.1.1")
    if max_pdu_length is not None:
        ae.maximum_pdu_size = max_pdu_length
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: 0x0000)])
    print(server.server_address[1], flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    length = int(sys.argv[2]) if len(sys.argv) > 2 else None
    if sys.argv[1] == "ours":
        uvloop.run(ours(length))
    else:
        pynetdicom_server(length)
