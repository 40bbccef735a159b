"""What a C-STORE status means to an instance that waits for delivery (PS3.4 table B.2-1, PS3.7 annex C)."""

from imaging_services.domain.dicom.dimse import StoreAnswer
from imaging_services.domain.errors import ImagingError, OutOfResources, Refused, RetryableError

# Stored: success, and the warnings with which an SCP has stored the instance.
_STORED = {0x0000, 0x0001, 0x0107, 0x0116}
# May pass later without anybody's doing: processing failure, resource limitation.
_LATER = {0x0110, 0x0213}


def is_stored(status: int) -> bool:
    """True for success and for warnings (Bxxx and the warnings of PS3.7 annex C.4)."""
    return status in _STORED or status & 0xF000 == 0xB000


def failure_of(answer: StoreAnswer) -> ImagingError | None:
    """None when the instance was stored, else the error that says whether to try again."""
    if is_stored(answer.status):
        return None
    sentence = f"C-STORE status {answer.status:04X}H {answer.error_comment}".strip()
    if answer.status & 0xFF00 == 0xA700:
        return OutOfResources(sentence)
    if answer.status in _LATER:
        return RetryableError(sentence)
    return Refused(sentence)
