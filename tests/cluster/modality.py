"""Modalities that send all the time, by DCMTK's storescu: an association for every few images of one study.

Not by pynetdicom: on a busy machine its reactor thread now and then takes the answer of a C-STORE away from the caller.
"""

import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom.uid import generate_uid

from support.instances import instance, part10
from support.peers import dcmtk_program

IMAGES_PER_ASSOCIATION = 5
PIXELS = bytes(2 * 64 * 64)
RETRY_SECONDS = 0.5
_TIMES = ("--timeout", "60", "--acse-timeout", "60", "--dimse-timeout", "120")
_ANSWERED = re.compile(r"Sending file: (\S+)\n(?:(?!.*Sending file).*\n)*?.*Received Store Response \(Success\)")


class Modality(threading.Thread):
    """Sends until told to stop. ``retries``: what was not acknowledged is sent again, as modalities do.

    ``acknowledged`` holds the instances that got success (0000H); ``failures`` what storescu said otherwise.
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
            with tempfile.TemporaryDirectory() as folder:
                images = [self._image(Path(folder)) for _ in range(IMAGES_PER_ASSOCIATION)]
                while images := self._send(images):
                    if not self._retries:
                        break
                    self._stop_sending.wait(RETRY_SECONDS)

    def finish(self, seconds: float = 300) -> None:
        """Complete what is being sent, then end."""
        self._stop_sending.set()
        self.join(seconds)
        assert not self.is_alive(), f"{self.name} does not come to an end: {self.failures[-3:]}"

    def _image(self, folder: Path) -> Path:
        image = instance(
            StudyInstanceUID=self.study,
            SeriesInstanceUID=self._series,
            PatientID=self.name,
            Rows=64,
            Columns=64,
            PixelData=PIXELS,
        )
        path = folder / str(image.SOPInstanceUID)
        path.write_bytes(part10(image))
        return path

    def _send(self, images: Sequence[Path]) -> list[Path]:
        """Those that were not acknowledged."""
        host, port, title = (str(self._peer[part]) for part in ("host", "port", "ae_title"))
        done = subprocess.run(
            [dcmtk_program("storescu"), "-v", *_TIMES, "-aet", "MODALITY", "-aec", title, host, port, *images],
            env=os.environ | {"TCP_NODELAY": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        stored = {Path(path) for path in _ANSWERED.findall(done.stdout)}
        self.acknowledged |= {path.name for path in stored}
        if done.returncode or len(stored) < len(images):
            self.failures.append(done.stdout[-1000:])
        return [path for path in images if path not in stored]


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
