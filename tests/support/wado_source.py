"""A storage space's WADO-RS side, as little of it as a binding asks for."""

import secrets

import orjson

from imaging_services.domain.dicom.part10 import file_meta
from imaging_services.domain.events.envelope import DICOM_AVAILABLE, CloudEvent, event_id
from support.dicom_files import DicomFile
from support.webhook import Receiver, Reply, Request


def stored_file(file: DicomFile) -> bytes:
    """The Part 10 file as we store it."""
    meta = file_meta(
        sop_class_uid=file.sop_class_uid,
        sop_instance_uid=file.sop_instance_uid,
        transfer_syntax=file.transfer_syntax_uid,
    )
    return meta + file.data_set


class WadoSource(Receiver):
    """``files`` maps paths below ``/wado-rs/`` to Part 10 files; ``plain`` answers without multipart."""

    path = "/wado-rs"

    def __init__(self, *files: DicomFile, plain: bool = False, authorization: str | None = None) -> None:
        super().__init__()
        self.files = {file.resource: stored_file(file) for file in files}
        self.plain = plain
        self.authorization = authorization

    def event(self, file: DicomFile, *, provider: str = "north") -> CloudEvent:
        """The announcement of a file, whether it is there or not."""
        return self.event_at(f"{self.url}/{file.resource}", provider=provider)

    def event_at(self, endpoint: str, *, provider: str = "north") -> CloudEvent:
        """The announcement of an instance at this URL."""
        data = orjson.dumps({"provider": provider, "endpoint": endpoint})
        return CloudEvent(DICOM_AVAILABLE, "processor.test", event_id(DICOM_AVAILABLE, endpoint), data)

    def answer(self, request: Request) -> Reply:
        if self.authorization is not None and request.headers.get("authorization") != self.authorization:
            return Reply(401)
        file = self.files.get(request.path.removeprefix(f"{self.path}/"))
        if file is None:
            return Reply(404, b"no such instance")
        if self.plain:
            return Reply(200, file, {"Content-Type": "application/dicom"})
        boundary = secrets.token_hex(8)
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = head + file + f"\r\n--{boundary}--\r\n".encode()
        return Reply(200, body, {"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'})
