"""The one tree of errors. Whether to try again is part of the type; every protocol's answer is derived from it.

::

    ImagingError
    ├── RetryableError            the same call may succeed later
    │   ├── BackendUnavailable    NATS, PostgreSQL, S3, a peer or a subscriber does not answer
    │   ├── DeadlineExceeded      it did not answer in time
    │   └── OutOfResources        disk, spool, stream or association limit is full
    └── PermanentError            the same call will fail again
        ├── InvalidInput          the peer's data is wrong
        │   ├── NotDicom          not a DICOM data set or Part 10 file
        │   ├── MissingIdentifier a UID that identifies the instance is absent or malformed
        │   └── DataSetMismatch   the data set does not match the command or the resource
        ├── UnsupportedSopClass   a SOP class that this service does not store
        ├── UnsupportedTransferSyntax  pixel data in a form that is not stored
        ├── Conflict              contradicts what is recorded (a series of another provider)
        │   ├── Superseded        a version of an instance that was sent later is there already
        │   └── ObjectDeleted     the object has the name of a deleted one
        ├── NotFound              no such study, series, instance, frame or object
        │   ├── NoPixelData       the instance is there, and is no image
        │   └── ObjectMissing     the instance is recorded, its object is known to be gone
        ├── CannotTranscode       the pixel data cannot be had in the encoding that was asked for
        ├── Refused               the other side understood and said no, for good
        │   └── AssociationRejected  a DICOM peer takes no association of this kind at all
        └── SettingsError         configuration is wrong; the start is stopped
"""

from dataclasses import dataclass
from typing import ClassVar


class ImagingError(Exception):
    """Base of every error this product raises on purpose; the message is one sentence for the log."""

    retryable: ClassVar[bool] = False


class RetryableError(ImagingError):
    """The same call may succeed later."""

    retryable = True


class BackendUnavailable(RetryableError):
    """NATS, PostgreSQL, S3, a DICOM peer or a subscriber cannot be reached or failed on its side."""


class DeadlineExceeded(RetryableError):
    """The other side did not answer within the time limit."""


class OutOfResources(RetryableError):
    """A disk, spool, stream or association limit is full; there may be room later."""


class PermanentError(ImagingError):
    """The same call will fail again; somebody has to change something first."""


class InvalidInput(PermanentError):
    """The peer's data is wrong; the message says what."""


class NotDicom(InvalidInput):
    """The bytes are neither a DICOM data set nor a Part 10 file (PS3.10 section 7)."""


class MissingIdentifier(InvalidInput):
    """Study, Series or SOP Instance UID, or the SOP Class UID, is absent or malformed."""


class DataSetMismatch(InvalidInput):
    """The data set's UIDs differ from the C-STORE command's, or from the STOW-RS resource's."""


class UnsupportedSopClass(PermanentError):
    """The SOP class is not among those this service stores."""


class UnsupportedTransferSyntax(PermanentError):
    """Pixel data comes in a form that no transfer syntax stands for."""


class Conflict(PermanentError):
    """The request contradicts what is recorded, such as a series that belongs to another provider."""


class Superseded(Conflict):
    """A version of the same instance that was sent later is there already: an older one never replaces it."""


class ObjectDeleted(Conflict):
    """The object has the name of a deleted instance's object, which is never used again."""


class NotFound(PermanentError):
    """There is no such study, series, instance, frame or object."""


class NoPixelData(NotFound):
    """The instance is there but has no pixel data, so it has no frames."""


class ObjectMissing(NotFound):
    """The instance is recorded, and an audit has found that its object is no longer in the storage space."""


class CannotTranscode(PermanentError):
    """The pixel data cannot be decoded, or not be had in the transfer syntax or media type that was asked for."""


class Refused(PermanentError):
    """The other side understood the request and refused it for good."""


class AssociationRejected(Refused):
    """A DICOM peer has rejected the association itself, permanently (PS3.8 table 9-21): no request will do better."""


class SettingsError(PermanentError):
    """A setting is missing or wrong; the message says which one and what to do."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What each protocol says of an error.

    ``dimse`` is the C-STORE status (PS3.4 table B.2-1), ``http`` the status code (RFC 9110), ``stow`` the
    Failure Reason (0008,1197) of PS3.18 table I.2-2. NATS and kopf follow from ``retryable`` alone:
    nak with delay or term, TemporaryError or PermanentError.
    """

    dimse: int
    http: int
    stow: int


_ANSWERS: dict[type[BaseException], Answer] = {
    OutOfResources: Answer(dimse=0xA700, http=503, stow=0xA700),
    DeadlineExceeded: Answer(dimse=0xA700, http=504, stow=0x0110),
    RetryableError: Answer(dimse=0xA700, http=503, stow=0x0110),
    NotDicom: Answer(dimse=0xC000, http=400, stow=0xC000),
    MissingIdentifier: Answer(dimse=0xC000, http=400, stow=0xC000),
    DataSetMismatch: Answer(dimse=0xA900, http=409, stow=0xA900),
    InvalidInput: Answer(dimse=0xC000, http=400, stow=0xC000),
    UnsupportedSopClass: Answer(dimse=0x0122, http=409, stow=0x0122),
    UnsupportedTransferSyntax: Answer(dimse=0xC000, http=415, stow=0xC122),
    Conflict: Answer(dimse=0x0110, http=409, stow=0x0110),
    NotFound: Answer(dimse=0x0112, http=404, stow=0x0112),
    ObjectMissing: Answer(dimse=0x0112, http=410, stow=0x0112),
    CannotTranscode: Answer(dimse=0x0110, http=406, stow=0x0110),
    Refused: Answer(dimse=0x0110, http=502, stow=0x0110),
    PermanentError: Answer(dimse=0x0110, http=500, stow=0x0110),
}
_UNFORESEEN = Answer(dimse=0x0110, http=500, stow=0x0110)


def answer_for(error: BaseException) -> Answer:
    """The answer of the nearest class in the table; anything unforeseen is 0110H and 500."""
    for cls in type(error).__mro__:
        if cls in _ANSWERS:
            return _ANSWERS[cls]
    return _UNFORESEEN


def is_retryable(error: BaseException) -> bool:
    """True when the work should be tried again: unforeseen errors count as retryable, since dead letters bound
    the tries and giving up at once could lose an instance."""
    return error.retryable if isinstance(error, ImagingError) else True
