"""What each of the ``DIMSE_URGENT_*`` settings makes urgent: by the proxy, and by the ingestion."""

import pytest

EACH_SETTING_ALONE = pytest.mark.parametrize(
    ("variables", "urgent"),
    [
        ({}, [False, False, False, False]),
        ({"DIMSE_URGENT_CALLING_AES": "CT1, ER "}, [True, False, False, False]),
        ({"DIMSE_URGENT_MODALITIES": "xa,US"}, [False, True, False, False]),
        ({"DIMSE_URGENT_PROCEDURE_PRIORITIES": "STAT,HIGH"}, [False, False, True, False]),
        ({"DIMSE_URGENT_BY_REQUEST": "true"}, [False, False, False, True]),
    ],
    ids=["none", "caller", "modality", "procedure", "request"],
)
"""Of four instances: one of the caller ER, one of Modality XA, one of priority HIGH, one whose C-STORE has it."""
