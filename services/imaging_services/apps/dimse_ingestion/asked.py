"""A request other than C-STORE, whether it came by an association or over the relay."""

from dataclasses import dataclass, field

from imaging_services.domain.dicom.command_set import CommandSet
from imaging_services.domain.dicom.dimse import Association, Cancellation
from imaging_services.domain.dicom.storage_scp import StorageScp


@dataclass(frozen=True, slots=True)
class Asked:
    """What the operations need to know of it. ``association`` is None for one that came over the relay;
    ``extended`` is what was negotiated for its SOP class (PS3.7 annex D.3.3.5); ``requestor`` takes the instances of a
    C-GET. ``association_id`` is that of an association at the other end of the relay."""

    calling_ae_title: str
    abstract_syntax: str
    transfer_syntax: str
    command: CommandSet
    data: bytes | None = None
    cancellation: Cancellation = field(default_factory=Cancellation)
    association: Association | None = None
    extended: bytes = b""
    requestor: StorageScp | None = None
    association_id: str = ""
