"""Orthanc with its DICOMweb plugin as a real peer, on free ports and without authentication on loopback."""

import contextlib
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

from imaging_services.local.ports import free_ports
from support.peers import installed

PROGRAM = Path("/usr/sbin/Orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


class Orthanc:
    """Use as a context manager, with a folder of its own.

    ``http`` and ``dicomweb`` are base URLs without a slash at the end; it calls itself ``ae_title`` at
    ``127.0.0.1:dicom_port``. ``settings`` are merged over the configuration, ``modalities`` maps a name to
    ``(AE title, host, port)``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "ORTHANC",
        modalities: dict[str, tuple[str, str, int]] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.http_port, self.dicom_port = free_ports(2)
        self.http = f"http://127.0.0.1:{self.http_port}"
        self.dicomweb = f"{self.http}/dicom-web"
        self.log = folder / "orthanc.log"
        self._modalities = {name: list(place) for name, place in (modalities or {}).items()}
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def get(self, path: str) -> Any:
        """A REST answer as JSON."""
        with urllib.request.urlopen(f"{self.http}{path}", timeout=20) as response:
            return json.load(response)

    def post(self, path: str, content: bytes | dict[str, Any]) -> Any:
        """Send bytes or JSON; the answer as JSON."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        with urllib.request.urlopen(f"{self.http}{path}", data=data, timeout=60) as response:
            return json.load(response)

    def file(self, instance_id: str) -> bytes:
        """The Part 10 file of an instance, by Orthanc's own id."""
        with urllib.request.urlopen(f"{self.http}/instances/{instance_id}/file", timeout=20) as response:
            body: bytes = response.read()
            return body

    def clear(self) -> None:
        """Delete everything that is stored."""
        for patient in self.get("/patients"):
            request = urllib.request.Request(f"{self.http}/patients/{patient}", method="DELETE")
            urllib.request.urlopen(request, timeout=20).close()

    def __enter__(self) -> Self:
        installed(str(PROGRAM), "orthanc")
        installed(str(PLUGIN), "orthanc-dicomweb")
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration(), indent=1))
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(PROGRAM), str(configuration)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"TCP_NODELAY": "1"},
            )
        try:
            self._until_it_answers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None, "not started"
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _until_it_answers(self, seconds: float = 90) -> None:
        assert self._process is not None, "not started"
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(urllib.error.URLError, OSError):
                self.get("/system")
                return
            time.sleep(0.05)
        raise AssertionError(f"Orthanc does not answer:\n{self.log.read_text(errors='replace')[-3000:]}")

    def _configuration(self) -> dict[str, Any]:
        return {
            "Name": self.ae_title,
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [str(PLUGIN)],
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": self.ae_title,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowMove": True,
            "DicomAlwaysAllowGet": True,
            "UnknownSopClassAccepted": True,
            "DicomModalities": self._modalities,
            "OverwriteInstances": True,
            "HttpsVerifyPeers": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": True, "StudiesMetadata": "Full"},
        } | self._settings
