"""Settings of the read cache; the names are the environment's."""

from pathlib import Path

from pydantic import BaseModel, Field


class SpaceCacheVariables(BaseModel):
    """For the settings class of a service that reads from a storage space (derive from both ``ServiceSettings`` and
    this)."""

    SPACE_CACHE_DIRECTORY: Path | None = Field(
        default=None,
        description="directory of this machine where objects that were read from S3 or Azure are kept for the next "
        "reading; services may share it; empty: nothing is kept",
    )
    SPACE_CACHE_BYTES: int = Field(
        default=10 * 1024 * 1024 * 1024,
        ge=64 * 1024 * 1024,
        description="how much is kept there, bytes; what has not been read for longest goes first, and an object "
        "longer than an eighth of it is not kept",
    )
