"""Reading the data set of a request other than C-STORE: identifiers are small and are needed whole."""

from imaging_services.domain.dicom.dimse import DimseRequest
from imaging_services.domain.errors import InvalidInput

LONGEST_IDENTIFIER = 8 * 1024 * 1024
"""Bytes."""
LONGEST_RELAYED = 32 * 1024 * 1024
"""Bytes: what a relay passes on may be a film's image (N-SET)."""


async def read_identifier(request: DimseRequest, longest: int = LONGEST_IDENTIFIER) -> bytes | None:
    """The data set, or None when the request has none. Raises ``InvalidInput`` when it is longer than ``longest``
    bytes, and ``BackendUnavailable`` when the association is lost."""
    if request.data is None:
        return None
    blocks, size = [], 0
    async for block in request.data:
        blocks.append(block)
        size += len(block)
        if size > longest:
            raise InvalidInput(f"a data set of more than {longest} bytes")
    return b"".join(blocks)
