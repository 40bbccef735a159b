"""Which files are instances, and which nobody knows of."""

import errno
from pathlib import Path

import pydicom
import pytest

from imaging_services.cli.sending import read_dicom_file


@pytest.fixture
def some_file(tmp_path: Path) -> Path:
    path = tmp_path / "a.dcm"
    path.write_bytes(b"not an instance")
    return path


def failing_with(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("imaging_services.cli.sending.read_file_head", lambda *_, **__: None)
    monkeypatch.setattr(pydicom, "dcmread", fail)


def test_a_disk_that_fails_in_the_midst_of_a_file_is_told(some_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(OSError(errno.EIO, "Input/output error"), monkeypatch)
    with pytest.raises(OSError, match="Input/output error"):
        read_dicom_file(some_file)


def test_what_pydicom_finds_wrong_with_a_file_makes_it_none(some_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(OSError("No tag to read at file position 84"), monkeypatch)
    assert read_dicom_file(some_file) is None
