"""The proxy's first look at an instance: the sender is told at once, and no byte is changed."""

import pytest
from pydicom.uid import CTImageStorage

from imaging_services.domain.dicom.command_set import store_request
from imaging_services.domain.errors import DataSetMismatch, NotDicom
from imaging_services.domain.ingest.screening import screen
from support.instances import blocks, encoded, instance

EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.mark.parametrize("size", [1, 1000, 10**6])
async def test_all_bytes_pass(size: int) -> None:
    data_set = instance()
    body = encoded(data_set) + b"\xe0\x7f\x10\0OW\0\0" + (200_000).to_bytes(4, "little") + bytes(200_000)
    command = store_request(data_set.SOPClassUID, data_set.SOPInstanceUID)
    header, screened = await screen(blocks(body, size), EXPLICIT, command)
    assert header.uid(0x00080018) == data_set.SOPInstanceUID
    assert b"".join([block async for block in screened]) == body


async def test_an_instance_without_a_study_passes() -> None:
    data_set = instance()
    del data_set.StudyInstanceUID
    command = store_request(data_set.SOPClassUID, data_set.SOPInstanceUID)
    _, screened = await screen(blocks(encoded(data_set), 4096), EXPLICIT, command)
    assert [block async for block in screened]


@pytest.mark.parametrize("which", ["class", "instance"])
async def test_other_uids_than_the_commands_are_told(which: str) -> None:
    data_set = instance()
    command = store_request(
        CTImageStorage if which == "instance" else "1.2.3", "1.2.3" if which == "instance" else data_set.SOPInstanceUID
    )
    with pytest.raises(DataSetMismatch, match="is not the request's"):
        await screen(blocks(encoded(data_set), 4096), EXPLICIT, command)


@pytest.mark.parametrize("body", [b"", b"no data set at all", bytes(70_000)])
async def test_what_is_no_data_set_is_told(body: bytes) -> None:
    with pytest.raises(NotDicom):
        await screen(blocks(body, 4096), EXPLICIT, store_request(CTImageStorage, "1.2.3"))
