"""Services besides storage whose requests a relay passes on (PS3.4)."""

from imaging_services.domain.dicom.command_set import CommandField, CommandSet

_ROOT = "1.2.840.10008."
_PRINT = _ROOT + "5.1.1."
_QUERY = _ROOT + "5.1.4."
_QUERY_RETRIEVE = _QUERY + "1.2."

PATIENT_ROOT_FIND = _QUERY_RETRIEVE + "1.1"
STUDY_ROOT_FIND = _QUERY_RETRIEVE + "2.1"
STORAGE_COMMITMENT_PUSH = _ROOT + "1.20.1"

PRINT_MANAGEMENT = frozenset(
    _PRINT + part
    for part in ("1", "2", "4", "4.1", "9", "14", "15", "16", "16.376", "18", "22", "23", "24", "24.1", "26")
)
"""Annex H, retired classes too. What a requestor creates here lives as long as its association: all that it asks has to
go over one."""

RETRIEVE_GET = frozenset(
    _QUERY + part
    for part in (
        *("1.2.1.3", "1.2.2.3", "1.2.3.3", "1.2.4.3", "1.2.5.3", "1.1.200.6", "1.1.201.4"),
        *("20.3", "38.4", "39.4", "43.4", "44.4", "45.4"),
    )
)
"""C-GET of all information models: its sub-operations go back over the association of the request."""

NORMALIZED_SERVICES = PRINT_MANAGEMENT | {
    STORAGE_COMMITMENT_PUSH,  # annex J
    *(_ROOT + "3.1.2.3." + part for part in ("3", "4", "5")),  # Modality Performed Procedure Step, annex F
    _QUERY + "33",  # Instance Availability Notification, annex R
    *(_QUERY + "34.6." + part for part in ("1", "2", "3", "4", "5")),  # Unified Procedure Step, annex CC
    *(_QUERY + part for part in ("34.8", "34.9")),  # RT machine verification, annex DD
    *(_PRINT + part for part in ("33", "40")),  # media creation, annex S, and display system, annex EE
    *(_ROOT + part for part in ("1.40", "1.42")),  # event logging, annexes P and GG
    _QUERY + "1.1.201.5",  # inventory creation, annex KK
}
"""Those of DIMSE-N requests: an event report may come back over the association that asks."""

RELAYED_SERVICES = (
    NORMALIZED_SERVICES
    | RETRIEVE_GET
    | {
        *(_QUERY_RETRIEVE + part for part in ("1.1", "1.2", "2.1", "2.2", "3.1", "3.2")),  # annex C, FIND and MOVE
        _QUERY_RETRIEVE + "4.2",  # Composite Instance Root, annex Y, MOVE
        *(_QUERY + part for part in ("31", "32", "32.1", "32.2", "32.3")),  # worklists, annex K
        *(_QUERY + part for part in ("1.1.201.2", "1.1.201.3", "1.1.201.6")),  # inventories, annex JJ, and repositories
        *(_QUERY + "37." + part for part in ("1", "2", "3")),  # Relevant Patient Information, annex Q
        *(_QUERY + part for part in ("41", "42")),  # product characteristics and substance approval, annex V
        *(
            _QUERY + group + verb for group in ("38", "39", "43", "44", "45") for verb in (".2", ".3")
        ),  # annexes U, X, BB
        *(_QUERY + part for part in ("20.1", "20.2", "1.1.200.4", "1.1.200.5")),  # protocols, annexes HH and II
    }
)

_NORMALIZED = range(CommandField.N_EVENT_REPORT_RQ + 0x10, 0x0151, 0x10)  # N-GET to N-DELETE (PS3.7 table E.1-1)


def is_normalized(command: CommandSet) -> bool:
    """A request of a DIMSE-N operation, which is no event report."""
    return command.command_field in _NORMALIZED
