"""Services besides storage whose requests a relay passes on (PS3.4 annexes C, F, J, K)."""

_ROOT = "1.2.840.10008."

PATIENT_ROOT_FIND = _ROOT + "5.1.4.1.2.1.1"
STUDY_ROOT_FIND = _ROOT + "5.1.4.1.2.2.1"

RELAYED_SERVICES = frozenset(
    {
        PATIENT_ROOT_FIND,
        STUDY_ROOT_FIND,
        _ROOT + "5.1.4.1.2.1.2",  # Patient Root MOVE
        _ROOT + "5.1.4.1.2.2.2",  # Study Root MOVE
        _ROOT + "5.1.4.31",  # Modality Worklist FIND
        _ROOT + "3.1.2.3.3",  # Modality Performed Procedure Step
        _ROOT + "1.20.1",  # Storage Commitment Push Model
    }
)
"""C-GET is not among them: its sub-operations run backwards over the same association."""
