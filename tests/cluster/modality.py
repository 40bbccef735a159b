"""Modalities that send all the time: an association for every few images, each image a new instance of one study."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.association import Association

from support.instances import instance

IMAGES_PER_ASSOCIATION = 5
PIXELS = bytes(2 * 64 * 64)
RETRY_SECONDS = 0.5


class Modality(threading.Thread):
    """Sends until told to stop. ``retries``: what was not acknowledged is sent again, as modalities do.

    ``acknowledged`` holds the instances that got success (0000H); ``failures`` says what else happened.
    """

    def __init__(self, name: str, peer: dict[str, object], *, retries: bool) -> None:
        super().__init__(name=name, daemon=True)
        self.study = str(generate_uid())
        self.acknowledged: set[str] = set()
        self.failures: list[str] = []
        self._series = str(generate_uid())
        self._peer = peer
        self._retries = retries
        self._stop_sending = threading.Event()

    def run(self) -> None:
        """Associations one after the other."""
        while not self._stop_sending.is_set():
            images = [self._image() for _ in range(IMAGES_PER_ASSOCIATION)]
            while images := self._send(images):
                if not self._retries:
                    break
                self._stop_sending.wait(RETRY_SECONDS)

    def finish(self, seconds: float = 300) -> None:
        """Complete what is being sent, then end."""
        self._stop_sending.set()
        self.join(seconds)
        assert not self.is_alive(), f"{self.name} does not come to an end: {self.failures[-3:]}"

    def _image(self) -> pydicom.Dataset:
        image = instance(
            StudyInstanceUID=self.study,
            SeriesInstanceUID=self._series,
            PatientID=self.name,
            Rows=64,
            Columns=64,
            PixelData=PIXELS,
        )
        image.file_meta = pydicom.dataset.FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        return image

    def _send(self, images: Sequence[pydicom.Dataset]) -> list[pydicom.Dataset]:
        """Those that were not acknowledged."""
        ae = AE(ae_title="MODALITY")
        ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        ae.network_timeout = ae.dimse_timeout = ae.acse_timeout = 60
        host, port, title = (str(self._peer[part]) for part in ("host", "port", "ae_title"))
        association = ae.associate(host, int(port), ae_title=title)
        if not association.is_established:
            self.failures.append("no association")
            return list(images)
        try:
            return [image for image in images if not self._store(association, image)]
        finally:
            association.release()

    def _store(self, association: Association, image: pydicom.Dataset) -> bool:
        try:
            status = association.send_c_store(image).get("Status")
        except RuntimeError as error:  # the association has ended
            self.failures.append(str(error))
            return False
        if status != 0x0000:
            self.failures.append("no answer" if status is None else f"status {status:04X}")
            return False
        self.acknowledged.add(str(image.SOPInstanceUID))
        return True


@contextmanager
def sending(count: int, peer: dict[str, object], *, retries: bool = False) -> Iterator[list[Modality]]:
    """Modalities at work for the length of the block; at its end they complete what they are sending."""
    modalities = [Modality(f"modality-{number}", peer, retries=retries) for number in range(1, count + 1)]
    for modality in modalities:
        modality.start()
    try:
        yield modalities
    finally:
        for modality in modalities:
            modality.finish()


def more_than(modalities: Sequence[Modality], images: int) -> Callable[[], bool]:
    """A condition: each has had so many more images acknowledged from now on."""
    goals = [(modality, len(modality.acknowledged) + images) for modality in modalities]
    return lambda: all(len(modality.acknowledged) >= goal for modality, goal in goals)
