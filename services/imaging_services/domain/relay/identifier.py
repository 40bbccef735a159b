"""Reading the data set of a request other than C-STORE: identifiers are small and are needed whole."""

from imaging_services.domain.dicom.dimse import DimseRequest
from imaging_services.domain.errors import InvalidInput

LONGEST_IDENTIFIER = 8 * 1024 * 1024
"""Bytes."""


async def read_identifier(request: DimseRequest) -> bytes | None:
    """The data set, or None when the request has none. Raises ``InvalidInput`` when it is longer than 8 MiB, and
    ``BackendUnavailable`` when the association is lost."""
    if request.data is None:
        return None
    blocks, size = [], 0
    async for block in request.data:
        blocks.append(block)
        size += len(block)
        if size > LONGEST_IDENTIFIER:
            raise InvalidInput(f"an identifier of more than {LONGEST_IDENTIFIER} bytes")
    return b"".join(blocks)
