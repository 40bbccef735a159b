"""C-STORE targets: DCMTK's storescp, which writes what it gets as it is, and one that answers what a test wants."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pynetdicom
from pynetdicom import AE, evt
from pynetdicom.events import Event

from imaging_services.local.ports import free_ports
from support.open_sockets import OpenSockets
from support.peers import dcmtk_program


@contextmanager
def storescp(folder: Path, *options: str, ae_title: str = "STORESCP") -> Iterator[int]:
    """DCMTK's storescp writing to the folder, a process for each association; gives its port."""
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = free_ports(1)
    command = [
        dcmtk_program("storescp"),
        "--fork",
        "--bit-preserving",
        *options,
        "-aet",
        ae_title,
        "-od",
        str(folder),
        str(port),
    ]
    process = subprocess.Popen(
        command, env=os.environ | {"TCP_NODELAY": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _until_it_listens(port)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _until_it_listens(port: int) -> None:
    for _ in range(3000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("storescp does not listen")


class ScriptedScp:
    """Answers each C-STORE with the next status of ``script``, else success; remembers what came.

    ``syntaxes`` are the transfer syntaxes it accepts (default: all that pynetdicom knows).
    """

    def __init__(self, *, syntaxes: list[str] | None = None, delay: float = 0) -> None:
        self.script: list[int] = []
        self.stored: list[str] = []
        self.calling: list[str] = []
        self.called: list[str] = []
        self.associations = 0
        self.most_at_once = 0
        self.reject_for_now = False
        self._at_once = 0
        self._delay = delay
        self._lock = threading.Lock()
        self._sockets = OpenSockets()
        self._ae = AE(ae_title="SCRIPTED")
        self._ae.maximum_associations = 50
        for context in pynetdicom.AllStoragePresentationContexts:
            self._ae.add_supported_context(str(context.abstract_syntax), syntaxes or pynetdicom.ALL_TRANSFER_SYNTAXES)

    def __enter__(self) -> "ScriptedScp":
        handlers = [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_C_STORE, self._store),
            self._sockets.handler,
        ]
        self._server = self._ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port: int = self._server.socket.getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._sockets.close()

    def _requested(self, event: Event) -> None:
        if self.reject_for_now:  # PS3.8 table 9-21: rejected-transient, local limit exceeded
            event.assoc.acse.send_reject(0x02, 0x03, 0x02)
            event.assoc.kill()

    def _accepted(self, event: Event) -> None:
        with self._lock:
            self.associations += 1
            self.calling.append(event.assoc.requestor.ae_title)
            self.called.append(event.assoc.requestor.primitive.called_ae_title)

    def _store(self, event: Event) -> int:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(self._delay)
        with self._lock:
            self._at_once -= 1
            status = self.script.pop(0) if self.script else 0x0000
            if status == 0x0000:
                self.stored.append(str(event.request.AffectedSOPInstanceUID))
            return status
