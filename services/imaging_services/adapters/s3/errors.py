"""What obstore raises, as our tree of errors."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError

from imaging_services.domain.errors import BackendUnavailable, DeadlineExceeded, ImagingError, NotFound, OutOfResources

_STATUS = re.compile(r"status code: (\d{3})")
_FULL = re.compile(r"InsufficientStorage|StorageFull|QuotaExceeded|DiskFull|no space left", re.IGNORECASE)
_CODE = re.compile(r"<Code>([^<]+)</Code>")
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(\w+)")

_UNKNOWN = {"UnknownIssuer", "BadSignature", "CaUsedAsEndEntity"}


class RangeNotSatisfiable(Exception):
    """A read that begins at or after the end of the object."""


@contextmanager
def converted(operation: str) -> Iterator[None]:
    """Raise our errors for obstore's within the block; the message names the operation and the server's answer."""
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        raise _convert(operation, error) from error


def _convert(operation: str, error: Exception) -> ImagingError | RangeNotSatisfiable:
    text = str(error)
    found = _STATUS.search(text)
    status = int(found[1]) if found else None
    code = _CODE.search(text)
    summary = " ".join(filter(None, [str(status or ""), code[1] if code else ""])) or text.split("\n", 1)[0][:200]
    if isinstance(error, FileNotFoundError) and not (code and code[1] in ("NoSuchBucket", "ContainerNotFound")):
        return NotFound(f"{operation}: no such object")
    if isinstance(error, FileNotFoundError):
        return BackendUnavailable(f"{operation}: the bucket does not exist")
    if status == 416 or "StartTooLarge" in text:  # some servers answer such a range with the whole object
        return RangeNotSatisfiable(operation)
    if status == 507 or _FULL.search(text):
        return OutOfResources(f"{operation}: the storage space is full ({summary})")
    refused = _CERTIFICATE.search(text)
    if refused:
        todo = ": set BUCKET_CA_FILE to a PEM file of the authority that issued it" if refused[1] in _UNKNOWN else ""
        return BackendUnavailable(f"{operation}: the server's certificate is refused ({refused[1]}){todo}")
    if status in (401, 403):
        return BackendUnavailable(f"{operation}: the storage space refuses our credentials ({summary})")
    if "kind: Timeout" in text or "TimedOut" in text or status in (408, 504):
        return DeadlineExceeded(f"{operation}: the storage space does not answer in time")
    return BackendUnavailable(f"{operation}: the storage space failed ({summary})")
