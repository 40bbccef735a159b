"""An archive with pynetdicom that reports on storage commitment over the association on which it was asked."""

import threading
from dataclasses import dataclass
from typing import Self

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

from support.open_sockets import OpenSockets
from support.scripted_services import COMMITMENT, MPPS

WELL_KNOWN = "1.2.840.10008.1.20.1.1"


@dataclass
class Reported:
    """How a report was answered: the status, the Error Comment and the Event Reply."""

    status: int | None
    comment: str
    reply: Dataset | None


class ReportingArchive:
    """``answers`` to the reports that it sent over the associations of their requests; ``contexts`` of each association
    and, with ``ended``, how many of them are over. It reports when ``go`` is set: at once, unless it is cleared;
    ``document`` makes its reports long."""

    def __init__(self) -> None:
        self.answers: list[Reported] = []
        self.contexts: list[list[str]] = []
        self.asked: list[Dataset] = []
        self.ended = 0
        self.document = b""
        self.go = threading.Event()
        self.go.set()
        self._responding: Association | None = None
        self._news = threading.Condition()
        self._sockets = OpenSockets()
        self._ae = AE(ae_title="ARCHIVE")
        for uid in (COMMITMENT, MPPS):
            self._ae.add_supported_context(uid, ["1.2.840.10008.1.2"])

    def __enter__(self) -> Self:
        handlers = [
            (evt.EVT_ESTABLISHED, self._established),
            (evt.EVT_N_ACTION, self._acted),
            (evt.EVT_DIMSE_SENT, self._sending),
            (evt.EVT_PDU_SENT, self._sent),
            (evt.EVT_RELEASED, self._over),
            (evt.EVT_ABORTED, self._over),
            self._sockets.handler,
        ]
        self._server = self._ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port: int = self._server.socket.getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self._server.shutdown()
        self._sockets.close()

    def report_anew(self, port: int, called: str) -> int | None:
        """Repeat the last report over a new association, as the SCP of it (PS3.4 section J.3.3)."""
        ae = AE(ae_title="ARCHIVE")
        ae.add_requested_context(COMMITMENT, ["1.2.840.10008.1.2"])
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = COMMITMENT, False, True
        association = ae.associate(
            "127.0.0.1", port, ae_title=called, ext_neg=[role], evt_handlers=[self._sockets.handler]
        )
        assert association.is_established
        status, _ = association.send_n_event_report(self._report(self.asked[-1]), 1, COMMITMENT, WELL_KNOWN)
        association.release()
        return status.get("Status")

    def _established(self, event: Event) -> None:
        with self._news:
            self.contexts.append([one.abstract_syntax for one in event.assoc.accepted_contexts])

    def _over(self, _: Event) -> None:
        with self._news:
            self.ended += 1

    def _acted(self, event: Event) -> tuple[int, None]:
        self.asked.append(event.action_information)
        return 0x0000, None

    def _sending(self, event: Event) -> None:
        """Told before the message's fragments are queued: those of a report sent now would mix with them."""
        if type(event.message).__name__ == "N_ACTION_RSP":
            self._responding = event.assoc

    def _sent(self, event: Event) -> None:
        """The response to N-ACTION, which is one PDU, has gone: from now on the association is free for a report."""
        if self._responding is event.assoc and isinstance(event.pdu, P_DATA_TF):
            self._responding = None
            threading.Thread(target=self._send, args=(event.assoc, self.asked[-1]), daemon=True).start()

    def _send(self, association: Association, transaction: Dataset) -> None:
        self.go.wait(60)
        try:
            status, reply = association.send_n_event_report(self._report(transaction), 1, COMMITMENT, WELL_KNOWN)
        except RuntimeError:  # the association is over
            status, reply = Dataset(), None
        with self._news:
            self.answers.append(Reported(status.get("Status"), str(status.get("ErrorComment", "")), reply))

    def _report(self, transaction: Dataset) -> Dataset:
        report = Dataset()
        report.TransactionUID = transaction.TransactionUID
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = MPPS, "1.2.3"
        report.ReferencedSOPSequence = [item]
        if self.document:
            report.EncapsulatedDocument = self.document
        return report
