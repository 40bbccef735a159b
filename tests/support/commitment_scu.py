"""A requestor of storage commitment with pynetdicom, which hears reports over its own association or over others."""

import threading
import time
from typing import Self

import pydicom
from pydicom.uid import CTImageStorage
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from support.open_sockets import OpenSockets

TITLE = "REQUESTOR"


class CommitmentScu:
    """Asks and listens. ``reports`` has the Event Information of each N-EVENT-REPORT with its Event Type ID, ``over``
    says of each whether it came over another association. ``answers`` are statuses to give first. It also stores."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, pydicom.Dataset]] = []
        self.over: list[bool] = []
        self.stored: list[str] = []
        self.answers: list[int] = []
        self._came = threading.Condition()
        self._sockets = OpenSockets()
        self._answered = False
        self._listening = AE(ae_title=TITLE)
        self._listening.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        self._listening.add_supported_context(CTImageStorage)

    def __enter__(self) -> Self:
        handlers = [
            (evt.EVT_N_EVENT_REPORT, self._reported, [True]),
            (evt.EVT_C_STORE, self._store),
            self._sockets.handler,
        ]
        self._server = self._listening.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port: int = self._server.socket.getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._sockets.close()

    def ask(
        self,
        port: int,
        called: str,
        *transactions: pydicom.Dataset,
        wait: bool = False,
        action_type: int = 1,
        reports: int = 0,
    ) -> list[int]:
        """N-ACTION for each transaction; its statuses. ``wait``: keep the association until a report is answered over
        it; ``reports``: until so many have come, over whichever."""
        ae = AE(ae_title=TITLE)
        ae.add_requested_context(StorageCommitmentPushModel)
        handlers = [
            (evt.EVT_N_EVENT_REPORT, self._reported, [False]),
            (evt.EVT_PDU_SENT, self._sent),
            self._sockets.handler,
        ]
        association = ae.associate("127.0.0.1", port, ae_title=called, evt_handlers=handlers)
        assert association.is_established
        statuses = []
        for transaction in transactions:
            status, _ = association.send_n_action(
                transaction, action_type, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            statuses.append(status.Status)
        if wait:
            with self._came:
                assert self._came.wait_for(lambda: self._answered, 30), "no report over the same association"
        self.wait_for(reports)
        association.release()
        return statuses

    def wait_for(self, count: int) -> None:
        """Until so many reports have come."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.reports) >= count, 90), f"{len(self.reports)} reports"

    def _sent(self, event: Event) -> None:
        with self._came:
            self._answered = bool(self.reports) and isinstance(event.pdu, P_DATA_TF)
            self._came.notify_all()

    def _store(self, event: Event) -> int:
        time.sleep(0.05)
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def _reported(self, event: Event, over_another: bool) -> tuple[int, None]:
        with self._came:
            status = self.answers.pop(0) if self.answers else 0x0000
            if status == 0x0000:
                self.reports.append((event.event_type, event.event_information))
                self.over.append(over_another)
            self._came.notify_all()
            return status, None


def transaction(*instances: pydicom.Dataset, uid: str | None = None) -> pydicom.Dataset:
    """Action Information for the instances."""
    asked = pydicom.Dataset()
    asked.TransactionUID = uid or pydicom.uid.generate_uid()
    asked.ReferencedSOPSequence = []
    for one in instances:
        item = pydicom.Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
        asked.ReferencedSOPSequence.append(item)
    return asked


def failures(report: pydicom.Dataset) -> dict[str, int]:
    """Failure Reason by SOP Instance UID."""
    return {item.ReferencedSOPInstanceUID: item.FailureReason for item in report.get("FailedSOPSequence", [])}


def successes(report: pydicom.Dataset) -> set[str]:
    """SOP Instance UIDs that are committed to."""
    return {item.ReferencedSOPInstanceUID for item in report.get("ReferencedSOPSequence", [])}
