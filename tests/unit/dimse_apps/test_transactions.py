"""Storage commitment transactions: what is read, kept and reported."""

import zlib
from io import BytesIO

import pytest
from pydicom.filereader import read_dataset

from imaging_services.adapters.memory.manifest import MemoryManifest
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.apps.dimse_ingestion.transactions import (
    Reference,
    Transaction,
    Verdict,
    read_request,
    write_report,
)
from imaging_services.apps.dimse_ingestion.verification import Verifier
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from imaging_services.domain.errors import BackendUnavailable, InvalidInput
from support.commitment_scu import failures, successes, transaction
from support.instances import encoded, instance

SYNTAXES = {EXPLICIT_LITTLE: "1.2.840.10008.1.2.1", IMPLICIT_LITTLE: "1.2.840.10008.1.2"}


@pytest.mark.parametrize("encoding", list(SYNTAXES))
def test_a_request_is_read(encoding):
    instances = [instance() for _ in range(3)]
    asked = transaction(*instances)
    uid, references = read_request(encoded(asked, SYNTAXES[encoding]), encoding)
    assert uid == asked.TransactionUID
    assert references == tuple(Reference(one.SOPClassUID, one.SOPInstanceUID) for one in instances)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x08\x00", encoded(transaction()), encoded(transaction(instance()))[:60], b"\xff" * 400],
    ids=["empty", "no element", "no references", "cut off", "noise"],
)
def test_a_broken_request_is_refused(data):
    with pytest.raises(InvalidInput):
        read_request(data, EXPLICIT_LITTLE)


def test_a_transaction_outlives_its_encoding():
    references = tuple(Reference("1.2.840.10008.5.1.4.1.1.2", f"1.2.3.{number}") for number in range(1000))
    kept = Transaction("1.2.3", "MOD", "abc", "def", references)
    assert Transaction.decode(kept.encode()) == kept
    for broken in (b"", b"no zlib", zlib.compress(b"{}"), zlib.compress(b"[1")):
        with pytest.raises(InvalidInput):
            Transaction.decode(broken)


@pytest.mark.parametrize("encoding", list(SYNTAXES))
def test_a_report_says_which_and_why(encoding):
    safe, failed = Reference("1.2.3", "1.2.3.4"), Reference("1.2.3", "1.2.3.5")
    verdict = Verdict((safe,), ((failed, 0x0112),))
    assert (verdict.event_type, Verdict((safe,)).event_type) == (2, 1)
    data = write_report("1.9", verdict, "ARCHIVE", encoding)
    report = read_dataset(BytesIO(data), encoding.implicit, encoding.little_endian)
    assert (report.TransactionUID, report.RetrieveAETitle) == ("1.9", "ARCHIVE")
    assert successes(report) == {"1.2.3.4"}
    assert failures(report) == {"1.2.3.5": 0x0112}
    assert "FailedSOPSequence" not in read_dataset(
        BytesIO(write_report("1.9", Verdict((safe,)), "ARCHIVE", encoding)), encoding.implicit, encoding.little_endian
    )


async def test_a_space_that_is_away_gives_no_verdict(monkeypatch):
    space, manifest = MemoryObjectStore(), MemoryManifest("test")
    references = [Reference("1.2.3", f"1.2.3.{number}") for number in range(450)]
    verdict = await Verifier(manifest, space, provider="space").verify(references)
    assert [one for one, _ in verdict.failed] == references

    async def away(query):
        raise BackendUnavailable("away")

    monkeypatch.setattr(manifest, "search", away)
    with pytest.raises(BackendUnavailable):
        await Verifier(manifest, space, provider="space").verify(references)
