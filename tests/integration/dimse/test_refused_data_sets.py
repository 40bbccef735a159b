"""A C-STORE that fails after its whole data set has arrived must not slow down the next one."""

import asyncio

import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from imaging_services.adapters.dimse.acceptor import listen
from imaging_services.adapters.dimse.data_set import PAUSE_ABOVE
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.domain.dicom.dimse import Association, DimseRequest, StoreAnswer
from imaging_services.domain.errors import BackendUnavailable
from support.audit import of_size
from support.dimse import Recorder


class FailsLate(Recorder):
    """Reads a part, waits until all has come (less than the limit at which reading pauses), and fails."""

    async def store(self, association: Association, request: DimseRequest) -> StoreAnswer:
        assert request.data is not None
        await anext(aiter(request.data))
        while not request.data.ended:
            await asyncio.sleep(0.01)
        raise BackendUnavailable("away")


async def test_what_a_failed_store_left_unread_does_not_count_against_the_next() -> None:
    listener = await listen(FailsLate(), "127.0.0.1", 0, AssociationLimits())
    try:
        assert await asyncio.to_thread(_send, listener.port, 4) == [0xA700] * 4
    finally:
        await listener.close(1)


def _send(port: int, times: int) -> list[int]:
    ae = AE()
    ae.dimse_timeout = 5
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    data_set = of_size(PAUSE_ABOVE - 100_000)
    data_set.file_meta = pydicom.dataset.FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    association = ae.associate("127.0.0.1", port)
    try:
        return [int(association.send_c_store(data_set).get("Status", -1)) for _ in range(times)]
    finally:
        association.release()
