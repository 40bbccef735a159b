"""Images as JPEG, PNG and GIF."""

import struct
from io import BytesIO

from PIL import Image, ImageCms
from pydicom import Dataset

from imaging_services.adapters.rendering.frame_attributes import first_item
from imaging_services.adapters.rendering.gif_palette import with_palette
from imaging_services.adapters.rendering.presentation import Presentation
from imaging_services.domain.errors import InvalidInput

JPEG = "image/jpeg"
PNG = "image/png"
GIF = "image/gif"

_DATE = slice(24, 36)
_FIXED_DATE = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
"""Of a profile that is made here: the same image always has the same bytes, as its ETag says."""


def encode(image: Image.Image, media_type: str, presentation: Presentation, header: Dataset) -> bytes:
    """The file. Raises ``InvalidInput`` for an ICC profile in a GIF, which has no place for one."""
    file = BytesIO()
    profile = None
    if presentation.icc_profile:
        profile = _icc_profile(header, image)
        image = image.convert("RGB")  # what the profile describes
    if media_type == GIF:
        if profile is not None:
            raise InvalidInput("iccprofile: image/gif cannot hold a profile")
        (with_palette(image) if image.mode == "RGB" else image).save(file, "GIF")
    elif media_type == PNG:
        image.save(file, "PNG", compress_level=4, icc_profile=profile)
    else:
        image.save(file, "JPEG", quality=presentation.quality, icc_profile=profile)
    return file.getvalue()


def _icc_profile(header: Dataset, image: Image.Image) -> bytes:
    """The image's own profile (PS3.3 section C.11.15), else sRGB."""
    path = first_item(header, "OpticalPathSequence")
    own = header.get("ICCProfile") or (path.get("ICCProfile") if path is not None else None)
    if image.mode == "RGB" and isinstance(own, bytes) and own:
        return own
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[: _DATE.start] + _FIXED_DATE + profile[_DATE.stop :]
