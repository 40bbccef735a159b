"""Independent DICOM senders for tests: pynetdicom sending data sets undecoded."""

from collections.abc import Iterable
from pathlib import Path

import pynetdicom
from pynetdicom import AE

from support.dicom_files import DicomFile

# Without it pynetdicom decodes and re-encodes; identity can only be proved with the bytes as they are.
pynetdicom._config.STORE_SEND_CHUNKED_DATASET = True


def send_undecoded(
    files: Iterable[DicomFile], address: dict[str, object], folder: Path, *, calling: str = "MODALITY"
) -> dict[Path, int]:
    """C-STORE each file with its data set as it is; returns the status by file (0x10000 when not accepted)."""
    statuses: dict[Path, int] = {}
    remaining = list(files)
    while remaining:
        batch, remaining = _one_association(remaining)
        ae = AE(ae_title=calling)
        for sop_class, syntax in dict.fromkeys((f.sop_class_uid, f.transfer_syntax_uid) for f in batch):
            ae.add_requested_context(sop_class, syntax)
        association = ae.associate(str(address["host"]), int(str(address["port"])), ae_title=str(address["ae_title"]))
        assert association.is_established
        try:
            for number, file in enumerate(batch):
                part10 = file.write_part10(folder / f"{number}.dcm")
                statuses[file.path] = _store(association, part10)
        finally:
            association.release()
    return statuses


def _store(association: pynetdicom.association.Association, part10: Path) -> int:
    try:
        return int(association.send_c_store(part10).Status)
    except ValueError:  # no presentation context was accepted for it
        return 0x10000


def _one_association(files: list[DicomFile]) -> tuple[list[DicomFile], list[DicomFile]]:
    """As many files, in order, as 128 presentation contexts can carry."""
    contexts: set[tuple[str, str]] = set()
    for index, file in enumerate(files):
        contexts.add((file.sop_class_uid, file.transfer_syntax_uid))
        if len(contexts) > 128:
            return files[:index], files[index:]
    return files, []
