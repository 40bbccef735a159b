"""A pynetdicom AE that serves what relays pass on: it remembers what it was asked, by association."""

import threading
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt

COMMITMENT = "1.2.840.10008.1.20.1"
MPPS = "1.2.840.10008.3.1.2.3.3"
PRINT = "1.2.840.10008.5.1.1.9"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"


class ServicesScp:
    """``asked`` holds the kind of each request, its association's number, and its data set. A C-FIND has matches
    until a C-CANCEL comes."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, Dataset]] = []
        self.released: list[int] = []
        self._numbers: dict[Any, int] = {}
        self._lock = threading.Lock()
        self._ae = AE(ae_title="SERVICES")
        self._ae.maximum_pdu_size = 0
        for uid in (COMMITMENT, MPPS, PRINT, STUDY_ROOT_FIND):
            self._ae.add_supported_context(uid, ["1.2.840.10008.1.2"], scu_role=True, scp_role=True)

    def __enter__(self) -> "ServicesScp":
        handlers = [
            (evt.EVT_N_CREATE, self._created),
            (evt.EVT_N_SET, self._set),
            (evt.EVT_N_GET, self._got),
            (evt.EVT_N_DELETE, self._deleted),
            (evt.EVT_N_ACTION, self._acted),
            (evt.EVT_N_EVENT_REPORT, self._reported),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_RELEASED, self._released),
        ]
        self._server = self._ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = self._server.socket.getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    def kinds(self) -> list[str]:
        """What was asked, in order."""
        return [kind for kind, _, _ in self.asked]

    def associations(self, *kinds: str) -> set[int]:
        """The associations that these requests came over."""
        return {number for kind, number, _ in self.asked if kind in kinds}

    def _note(self, kind: str, event: Any, data: Dataset | None = None) -> None:
        with self._lock:
            number = self._numbers.setdefault(event.assoc, len(self._numbers))
            self.asked.append((kind, number, data or Dataset()))

    def _created(self, event: Any) -> tuple[int, Dataset]:
        self._note("N-CREATE", event, event.attribute_list)
        return 0x0000, event.attribute_list

    def _set(self, event: Any) -> tuple[int, Dataset]:
        self._note("N-SET", event, event.modification_list)
        return 0x0000, event.modification_list

    def _got(self, event: Any) -> tuple[int, Dataset]:
        self._note("N-GET", event)
        answer = Dataset()
        answer.PrinterName = "FILM"
        return 0x0000, answer

    def _deleted(self, event: Any) -> int:
        self._note("N-DELETE", event)
        return 0x0112

    def _acted(self, event: Any) -> tuple[int, None]:
        self._note("N-ACTION", event, event.action_information)
        return 0x0000, None

    def _reported(self, event: Any) -> tuple[int, None]:
        self._note("N-EVENT-REPORT", event, event.event_information)
        return 0x0000, None

    def _find(self, event: Any) -> Any:
        """Matches without end, until the cancellation comes."""
        self._note("C-FIND", event, event.identifier)
        waited = threading.Event()
        for _ in range(3000):
            if event.is_cancelled:
                self._note("C-CANCEL", event)
                yield 0xFE00, None
                return
            waited.wait(0.01)
            yield 0xFF00, event.identifier

    def _released(self, event: Any) -> None:
        with self._lock:
            self.released.append(self._numbers.setdefault(event.assoc, len(self._numbers)))
