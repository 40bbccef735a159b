"""The data of the events: typed models for whoever reads, the member names of the interface.

Optional members beyond the interface carry what the manifest can use; a consumer never needs them.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator


class _Payload(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Element(_Payload):
    """A top-level data element; ``value`` is the first value as text, null for sequences and empty elements."""

    group: str = Field(pattern=r"^[0-9A-Fa-f]{4}$")
    element: str = Field(pattern=r"^[0-9A-Fa-f]{4}$")
    vr: str
    value: str | None = None
    values: list[str] | None = Field(default=None, description="all values, when there is more than one")
    items: list[list["Element"]] | None = Field(
        default=None, description="the elements of each item, of the sequences that searches know"
    )

    @field_validator("group", "element", mode="before")
    @classmethod
    def _number_as_digits(cls, value: object) -> object:
        """Early producers wrote the two halves of the tag as JSON numbers."""
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return f"{value:04X}" if is_number else value

    @property
    def tag(self) -> int:
        """The tag as one number, group << 16 | element."""
        return int(self.group, 16) << 16 | int(self.element, 16)


class Image(_Payload):
    """The header of a stored instance: top-level elements in tag order, without pixel data and file meta."""

    transferSyntaxUID: str
    elements: list[Element]


class Store(_Payload):
    """Where the instance lies. ``size``, ``digest`` (hex SHA-256 of the file) and ``pixelDataOffset`` (bytes from
    the start of the file to the Pixel Data element; null without pixel data) are additions of this product."""

    provider: str
    bucketName: str | None = None
    objectName: str
    wadoInternalEndpoint: str | None = None
    wadoExternalEndpoint: str | None = None
    size: int | None = None
    digest: str | None = None
    pixelDataOffset: int | None = None


class ImageStored(_Payload):
    """Data of an ``ImageStoredEvent``: one instance has been stored in a storage space."""

    image: Image
    store: Store


class DicomAvailable(_Payload):
    """Data of a ``DicomAvailableEvent``: one instance is recorded and can be fetched at ``endpoint``."""

    provider: str
    endpoint: str


class DeletedInstance(_Payload):
    """An instance to delete, and the object that it is deleted with: a version that came later stays."""

    seriesInstanceUID: str
    sopInstanceUID: str
    objectName: str


class ImageDeleted(_Payload):
    """Data of an ``ImageDeletedEvent``: instances of one study that are no longer wanted in a storage space."""

    provider: str
    studyInstanceUID: str
    instances: list[DeletedInstance] = Field(min_length=1)


class RevisionInstance(_Payload):
    """An instance within a study revision."""

    sopInstanceUID: str
    sopClassUID: str | None = None
    number: int | None = None


class RevisionSeries(_Payload):
    """A series within a study revision, with all its instances in order of number."""

    seriesInstanceUID: str
    modality: str | None = None
    providerName: str | None = None
    number: int | None = None
    endpoint: str | None = None
    attributes: list[Element] = []
    instances: list[RevisionInstance] = []


class RevisionStudy(_Payload):
    """The study of a revision, with all its series in order of number."""

    studyInstanceUID: str
    studyDate: str | None = None
    attributes: list[Element] = []
    series: list[RevisionSeries] = []


class ChangeSet(_Payload):
    """What changed since the revision before, each as ``<SeriesInstanceUID>/<SOPInstanceUID>``."""

    additions: list[str] = []
    deletions: list[str] = []
    modifications: list[str] = []


class StudyRevision(_Payload):
    """Data of a ``StudyRevisionEvent``; early producers sent no ``revision`` and no ``changeSet``."""

    revision: int | None = None
    study: RevisionStudy
    changeSet: ChangeSet | None = None


JsonObject = dict[str, Any]
