"""Senders that never give up on an instance, and remember what was acknowledged to them."""

import gc
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pydicom
import pynetdicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from support.instances import encoded, instance, part10
from support.stack import Stack

Identity = tuple[str, str, str]
_DEADLINE = 90.0  # seconds in which an instance has to be taken, whatever was killed
_PACE = 0.02  # seconds between instances, so that the audit stays short
_TRY_LATER = {0xA700, None}  # out of resources, or no answer


def identity(data_set: pydicom.Dataset) -> Identity:
    """Study, series and instance UID."""
    return str(data_set.StudyInstanceUID), str(data_set.SeriesInstanceUID), str(data_set.SOPInstanceUID)


class Modality:
    """One DICOM association at a time; ``acknowledged`` keeps each data set by identity, ``statuses`` every answer."""

    def __init__(self, stack: Stack, service: str, patience: float = _DEADLINE) -> None:
        self._stack, self._service, self._patience = stack, service, patience
        self._association: pynetdicom.association.Association | None = None
        self.acknowledged: dict[Identity, bytes] = {}
        self.statuses: Counter[int | None] = Counter()
        self.longest = 0.0  # seconds that an instance took

    def __enter__(self) -> "Modality":
        return self

    def release(self) -> None:
        """The next instance comes over a new association."""
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None

    def __exit__(self, *_: object) -> None:
        self.release()
        gc.collect()  # sockets of connections that were refused, while their warning is expected

    def store(self, data_set: pydicom.Dataset) -> int | None:
        """One try; None when the association was lost or refused."""
        association, content = self._associated(), encoded(data_set)
        with _meta(data_set):
            status = association.send_c_store(data_set) if association else pydicom.Dataset()
        answer = int(status.Status) if "Status" in status else None
        self.statuses[answer] += 1
        if answer == 0:
            self.acknowledged[identity(data_set)] = content
        return answer

    def deliver(self, data_set: pydicom.Dataset) -> None:
        """Try again until it is acknowledged."""
        took = _insist(lambda: self.store(data_set), f"C-STORE to {self._service}: {self.statuses}", self._patience)
        self.longest = max(self.longest, took)

    def _associated(self) -> pynetdicom.association.Association | None:
        if self._association is None or not self._association.is_established:
            ae = pynetdicom.AE(ae_title="PROMISES")
            ae.connection_timeout = 5
            ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
            ae.add_requested_context("1.2.840.10008.5.1.4.1.2.2.1")
            address = self._stack.ready[self._service]
            self._association = ae.associate(address["host"], address["port"], ae_title=address["ae_title"])
        return self._association if self._association.is_established else None


class StowClient:
    """STOW-RS, one instance a request."""

    def __init__(self, stack: Stack, patience: float = _DEADLINE) -> None:
        self._client, self._url = httpx.Client(timeout=40), f"{stack.url('stow')}/studies"
        self._patience = patience
        self.acknowledged: dict[Identity, bytes] = {}
        self.longest = 0.0  # seconds that an instance took

    def release(self) -> None:
        """There is nothing to release."""

    def __enter__(self) -> "StowClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def deliver(self, data_set: pydicom.Dataset) -> None:
        """Try again until it is acknowledged."""
        self.longest = max(self.longest, _insist(lambda: self._store(data_set), "STOW-RS", self._patience))
        self.acknowledged[identity(data_set)] = encoded(data_set)

    def _store(self, data_set: pydicom.Dataset) -> int | None:
        body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part10(data_set) + b"\r\n--b--\r\n"
        headers = {
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=b',
            "Accept": "application/dicom+json",
        }
        try:
            response = self._client.post(self._url, content=body, headers=headers)
        except httpx.TransportError:
            return None
        if response.status_code == 200:
            return 0
        # 409: no instance could be stored, each with its own reason; later is fine for all that a crash causes.
        assert response.status_code in (409, 429, 500, 502, 503, 504), response.text
        return None


@contextmanager
def _meta(data_set: pydicom.Dataset) -> Iterator[None]:
    """pynetdicom finds the presentation context by the file meta header."""
    data_set.file_meta = pydicom.dataset.FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    try:
        yield
    finally:
        del data_set.file_meta


def _insist(attempt: Callable[[], int | None], what: str, patience: float) -> float:
    begun = time.monotonic()
    deadline = begun + patience
    while (status := attempt()) != 0:
        assert status in _TRY_LATER, f"{what}: {status}"
        assert time.monotonic() < deadline, f"{what}: not acknowledged within {patience:g} s"
        time.sleep(0.1)
    return time.monotonic() - begun


@contextmanager
def streaming(
    client: Modality | StowClient,
    *,
    large_every: int = 25,
    pace: float = _PACE,
    release_every: int = sys.maxsize,
    study: Callable[[], dict[str, object]] = dict,
) -> "Iterator[Future[None]]":
    """New instances, one after the other, during the block; its end waits until the last one is acknowledged.

    Every ``large_every``-th has 9 MiB, which goes through the relay's bucket and through spools on disk. ``pace`` is
    the wait between two, seconds; after ``release_every`` an association ends; ``study`` gives the attributes of the
    study that the next one belongs to. Gives the future of the sending, done early only when an instance was not taken.
    """
    enough = threading.Event()

    def send() -> None:
        number = 0
        while not enough.is_set():
            number += 1
            client.deliver(of_size(9 << 20, **study()) if number % large_every == 0 else instance(**study()))
            if number % release_every == 0:
                client.release()
            enough.wait(pace)

    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(send)
        try:
            yield sending
        finally:
            enough.set()
        sending.result()


def of_size(size: int, **attributes: object) -> pydicom.Dataset:
    """An instance whose pixel data has that many bytes."""
    return instance(Rows=size // 2048, Columns=1024, PixelData=bytes(size // 2048 * 2048), **attributes)
