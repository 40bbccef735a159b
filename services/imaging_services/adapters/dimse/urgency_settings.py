"""Environment variables that say which instances of DICOM associations are urgent (mix-in)."""

from pydantic import BaseModel, Field

from imaging_services.domain.ingest.urgency import Urgency, codes
from imaging_services.domain.relay.admission import titles


class UrgencyVariables(BaseModel):
    """Shared by the proxy, for the relay, and the ingestion, for events: mix into ``Settings``."""

    DIMSE_URGENT_CALLING_AES: str = Field(
        default="",
        description="AE titles, separated by commas, whose instances are urgent: they overtake others on the relay "
        "(durable mode; a setting of the proxy), and their events overtake others on their way to subscribers",
    )
    DIMSE_URGENT_MODALITIES: str = Field(
        default="", description="values of Modality (0008,0060), separated by commas, that are urgent"
    )
    DIMSE_URGENT_PROCEDURE_PRIORITIES: str = Field(
        default="",
        description="values of Requested Procedure Priority (0040,1003), such as STAT,HIGH, that are urgent; also "
        "within the Request Attributes Sequence; the proxy looks at the first 64 KiB of an instance",
    )
    DIMSE_URGENT_BY_REQUEST: bool = Field(
        default=False, description="a C-STORE with Priority HIGH is urgent; many modalities send all with it"
    )

    def urgency(self) -> Urgency:
        """What makes an instance urgent."""
        return Urgency(
            titles(self.DIMSE_URGENT_CALLING_AES),
            codes(self.DIMSE_URGENT_MODALITIES),
            codes(self.DIMSE_URGENT_PROCEDURE_PRIORITIES),
            self.DIMSE_URGENT_BY_REQUEST,
        )
