"""Accept negotiation of rendered resources (PS3.18 sections 8.7.4 and 8.7.5)."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from imaging_services.apps.dicomweb_ingestion.negotiation import accepted
from imaging_services.domain.dicom.media_types import MULTIPART, MediaRange
from imaging_services.domain.errors import CannotTranscode

_ALIASES = {"image/jpg": "image/jpeg"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request accepts, most wanted first."""

    ranges: Sequence[MediaRange]

    @property
    def parts(self) -> bool:
        """True when the first choice is multipart."""
        return bool(self.ranges) and self.ranges[0].is_multipart

    @property
    def anything(self) -> bool:
        """True when the first choice leaves the form open."""
        return bool(self.ranges) and self.ranges[0].type in ("*/*", "*")

    def choose(self, offered: Sequence[str]) -> str:
        """The media type of an answer or of a part. Raises ``CannotTranscode`` (406) that says what there is."""
        for one in self.ranges:
            for media_type in offered:
                if names(one, media_type):
                    return media_type
        raise CannotTranscode(
            "none of the accepted media types is available; available: "
            + ", ".join([*offered, *(f'{MULTIPART}; type="{media_type}"' for media_type in offered)])
        )


def wanted_of(request: Request) -> Wanted:
    """The media types that a request accepts, of its ``accept`` parameter or its header."""
    return Wanted(accepted(request))


def names(wish: MediaRange, media_type: str) -> bool:
    """True when the range covers the type, or names it as many clients do."""
    return wish.covers(media_type) or _ALIASES.get(wish.payload) == media_type
