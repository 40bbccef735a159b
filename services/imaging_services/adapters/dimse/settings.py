"""Limits and time-outs of DICOM associations."""

from pydantic import BaseModel, ConfigDict, Field


class AssociationLimits(BaseModel):
    """What an association may cost. Apps fill it from their own variables; the defaults suit a clinical network."""

    model_config = ConfigDict(frozen=True)

    max_associations: int = Field(
        default=100, ge=1, description="associations at a time; the next is rejected for now (local limit exceeded)"
    )
    max_pdu_length: int = Field(
        default=131072,
        ge=4096,
        le=16 * 1024 * 1024,
        description="longest P-DATA-TF that peers may send, bytes after the PDU's 6 byte header; it costs no memory",
    )
    max_sent_pdu_length: int = Field(
        default=131072,
        ge=4096,
        le=16 * 1024 * 1024,
        description="longest P-DATA-TF that is sent, bytes, also to peers that allow more or any length",
    )
    max_operations: int = Field(
        default=4, ge=1, le=256, description="operations of one association at a time, where a peer negotiates several"
    )
    artim_timeout_seconds: float = Field(
        default=30,
        gt=0,
        description="wait for an association request, for its answer, and for a peer to close (ARTIM), seconds",
    )
    idle_timeout_seconds: float = Field(
        default=600, gt=0, description="an association without a request for so long is aborted, seconds"
    )
    dimse_timeout_seconds: float = Field(
        default=60, gt=0, description="wait for a response, or for the rest of a message once begun, seconds"
    )
    connect_timeout_seconds: float = Field(default=10, gt=0, description="wait for a TCP (and TLS) connection, seconds")
