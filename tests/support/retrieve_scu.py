"""Requestors with pynetdicom: one that changes its mind, one that leaves out the keys above."""

import itertools
from functools import partial

import pydicom
from pydicom.uid import CTImageStorage, MRImageStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from support.open_sockets import OpenSockets


def cancelled(port: int, called: str, study: str, operation: str) -> tuple[list[pydicom.Dataset], list[str]]:
    """Cancel a ``get`` of the study, or its ``move`` to DEST, after the first pending response; the responses' command
    sets, and the instances that a get has brought."""
    got: list[str] = []

    def store(event: Event) -> int:
        got.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    ae, sockets = AE(ae_title="CANCELLER"), OpenSockets()
    model = f"1.2.840.10008.5.1.4.1.2.2.{3 if operation == 'get' else 2}"
    ae.add_requested_context(model)
    ae.add_requested_context(CTImageStorage)
    roles = [build_role(CTImageStorage, scp_role=True)]
    association = ae.associate(
        "127.0.0.1", port, ae_title=called, ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, store), sockets.handler]
    )
    assert association.is_established
    identifier = pydicom.Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", study
    send_move = partial(association.send_c_move, move_aet="DEST")
    send = association.send_c_get if operation == "get" else send_move
    statuses = []
    for status, _ in send(identifier, query_model=model, msg_id=7):
        statuses.append(status)
        if len(statuses) == 1:
            association.send_c_cancel(7, query_model=model)
    association.release()
    sockets.close()
    return statuses, got


def relational_move(port: int, called: str, level: str, keys: dict[str, str]) -> pydicom.Dataset:
    """Negotiate relational retrieve, move to DEST; the final response's command set."""
    ae, sockets = AE(ae_title="RELATIONAL"), OpenSockets()
    model = "1.2.840.10008.5.1.4.1.2.2.2"
    ae.add_requested_context(model)
    negotiation = SOPClassExtendedNegotiation()
    negotiation.sop_class_uid, negotiation.service_class_application_information = model, b"\x01"
    association = ae.associate(
        "127.0.0.1", port, ae_title=called, ext_neg=[negotiation], evt_handlers=[sockets.handler]
    )
    assert association.is_established
    identifier = pydicom.Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    *_, (status, _) = association.send_c_move(identifier, "DEST", model)
    association.release()
    sockets.close()
    return status


def got(
    port: int,
    called: str,
    study: str,
    answers: dict[int, int] | None = None,
    takes: tuple[str, ...] = (CTImageStorage,),
) -> tuple[pydicom.Dataset, list[str]]:
    """A get of the study by a requestor that takes these SOP classes, and answers the n-th instance (from 0) with a
    status of its own; the final response's command set, and the instances that were taken."""
    taken: list[str] = []
    count = itertools.count()

    def store(event: Event) -> int:
        status = (answers or {}).get(next(count), 0x0000)
        if status == 0x0000:
            taken.append(str(event.request.AffectedSOPInstanceUID))
        return status

    ae, sockets = AE(ae_title="GETTER"), OpenSockets()
    model = "1.2.840.10008.5.1.4.1.2.2.3"
    for uid in (model, CTImageStorage, MRImageStorage):
        ae.add_requested_context(uid)
    association = ae.associate(
        "127.0.0.1",
        port,
        ae_title=called,
        ext_neg=[build_role(uid, scp_role=True) for uid in takes],
        evt_handlers=[(evt.EVT_C_STORE, store), sockets.handler],
    )
    assert association.is_established
    identifier = pydicom.Dataset()
    identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", study
    *_, (status, _) = association.send_c_get(identifier, query_model=model)
    association.release()
    sockets.close()
    return status, taken
