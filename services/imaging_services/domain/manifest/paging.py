"""Which results of a search are asked for."""

from imaging_services.domain.dicom.uids import is_uid
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.attributes import UNIQUE_KEYS
from imaging_services.domain.manifest.query import Level, Query

_INT8 = 2**63


def require_page(query: Query) -> None:
    """Raise ``InvalidInput`` unless limit and offset are numbers of results, and ``after`` names one."""
    if query.offset < 0 or (query.limit is not None and query.limit < 0) or query.offset >= _INT8:
        raise InvalidInput(f"limit {query.limit} or offset {query.offset} is not a number of results")
    if query.after is not None:
        keys = UNIQUE_KEYS[query.level]
        if query.level is Level.PATIENT or len(query.after) != len(keys) or not all(map(is_uid, query.after)):
            raise InvalidInput(f"after is not the UIDs of a result at the {query.level} level")
