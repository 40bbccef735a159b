"""What a target needs to know of a fetched Part 10 file."""

from pathlib import Path

import pytest

from imaging_services.adapters.files.spool import FileSpools
from imaging_services.apps.instance_binding.instance import Instance, instance_of
from imaging_services.domain.errors import InvalidInput, NotDicom
from support.dicom_files import DicomFile, storable_files
from support.wado_source import stored_file

EXPLICIT = "1.2.840.10008.1.2.1"
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, on the awkward ones of its own files


async def joined(instance: Instance) -> tuple[bytes, bytes]:
    file = b"".join([block async for block in instance.file()])
    return file, b"".join([block async for block in instance.data_set_blocks()])


@pytest.mark.parametrize("memory_limit", [8 << 20, 16])
async def test_every_readable_file(tmp_path: Path, memory_limit: int) -> None:
    spools = FileSpools(tmp_path, memory_limit=memory_limit)
    for file in storable_files():
        stored = stored_file(file)
        async with spools.open() as spool:
            await spool.write(stored)
            instance = await instance_of(spool, None)
            assert instance.sop_class_uid == file.sop_class_uid
            assert instance.sop_instance_uid == file.sop_instance_uid
            assert instance.transfer_syntax == file.transfer_syntax_uid
            assert instance.size == len(stored)
            assert await joined(instance) == (stored, file.data_set)
    assert list(tmp_path.iterdir()) == []


def small() -> DicomFile:
    return next(file for file in storable_files() if file.path.name == "CT_small.dcm")


@pytest.mark.parametrize(("declared", "expected"), [(EXPLICIT, EXPLICIT), (None, EXPLICIT)])
async def test_a_data_set_without_file_meta(tmp_path: Path, declared: str | None, expected: str) -> None:
    async with FileSpools(tmp_path).open() as spool:
        await spool.write(small().data_set)
        instance = await instance_of(spool, declared)
        assert instance.transfer_syntax == expected
        assert instance.data_set == 0


@pytest.mark.parametrize("content", [b"", b"<html>not here</html>" * 20, b"\0" * 128 + b"DICM"])
async def test_what_is_no_dicom_file(tmp_path: Path, content: bytes) -> None:
    async with FileSpools(tmp_path).open() as spool:
        await spool.write(content)
        with pytest.raises(InvalidInput):
            await instance_of(spool, None)


async def test_a_file_that_ends_within_its_meta_header(tmp_path: Path) -> None:
    async with FileSpools(tmp_path).open() as spool:
        await spool.write(stored_file(small())[:200])
        with pytest.raises(NotDicom):
            await instance_of(spool, None)
