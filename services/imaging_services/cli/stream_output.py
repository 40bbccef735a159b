"""Frames in a folder, one file each."""

from pathlib import Path

from imaging_services.domain.dicom.transfer_syntaxes import is_encapsulated
from imaging_services.domain.dicom.uids import is_uid
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.streaming.client import StreamedFrame

_SUFFIXES = {
    "1.2.840.10008.1.2.5": "rle",
    "1.2.840.10008.1.2.4.50": "jpg",
    "1.2.840.10008.1.2.4.51": "jpg",
    "1.2.840.10008.1.2.4.57": "jpg",
    "1.2.840.10008.1.2.4.70": "jpg",
    "1.2.840.10008.1.2.4.80": "jls",
    "1.2.840.10008.1.2.4.81": "jls",
    "1.2.840.10008.1.2.4.90": "j2k",
    "1.2.840.10008.1.2.4.91": "j2k",
    "1.2.840.10008.1.2.4.201": "jhc",
    "1.2.840.10008.1.2.4.202": "jhc",
    "1.2.840.10008.1.2.4.203": "jhc",
}


class FrameFolder:
    """Writes ``<position>-<SOP Instance UID>-<frame>.<suffix>``: ``raw`` for native frames, else by the compression."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, position: int, frame: StreamedFrame) -> None:
        """Write a frame. Raises ``InvalidInput`` when the server named an instance by what is no UID."""
        uid, syntax = frame.instance.sop_instance_uid, frame.transfer_syntax_uid
        if not is_uid(uid):
            raise InvalidInput("the study header names an instance by what is no UID")
        suffix = _SUFFIXES.get(syntax, "bin") if is_encapsulated(syntax) else "raw"
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f"{position + 1:05}-{uid}-{frame.index + 1}.{suffix}").write_bytes(frame.content)
