"""Small images made by hand, and what they look like rendered."""

from io import BytesIO
from typing import Any

import httpx
import numpy as np
from PIL import Image
from pydicom import Dataset

from imaging_services.adapters.http.guard import Guard
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.adapters.rendering.image import render_frame
from imaging_services.adapters.rendering.presentation import Presentation
from imaging_services.apps.dicomweb_ingestion.app import build_app, prefixes
from imaging_services.apps.dicomweb_ingestion.rendered import rendered_router
from imaging_services.apps.dicomweb_ingestion.resources import instance_url
from imaging_services.apps.dicomweb_ingestion.wado_uri import wado_uri_router
from imaging_services.domain.dicom.pixel_description import PixelDescription, describe
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN
from imaging_services.domain.manifest.query import InstanceLocation
from support.dicomweb import PROVIDER, Recorded, keep
from support.pixels import moved, pydicom_file, stored

PIXEL_DATA, FLOAT_PIXEL_DATA = 0x7FE00010, 0x7FE00008


def header_of(array: np.ndarray[Any, Any], photometric: str = "MONOCHROME2", **attributes: Any) -> Dataset:
    """An Image Pixel module that fits the array, and further attributes by keyword."""
    header = Dataset()
    header.Rows, header.Columns = array.shape[:2]
    header.SamplesPerPixel = 1 if array.ndim == 2 else array.shape[2]
    header.PhotometricInterpretation = photometric
    header.BitsAllocated = array.dtype.itemsize * 8
    header.BitsStored = attributes.pop("BitsStored", header.BitsAllocated)
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = int(array.dtype.kind == "i")
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    return header


def pixels_of(header: Dataset, tag: int = PIXEL_DATA) -> PixelDescription:
    """What the product reads of the header."""
    return describe(header, transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN, tag=tag, frames=1)


def shown(
    array: np.ndarray[Any, Any],
    photometric: str = "MONOCHROME2",
    presentation: Presentation | None = None,
    *,
    frame: int = 1,
    **attributes: Any,
) -> list[Any]:
    """The rendered image's values as nested lists."""
    header = header_of(array, photometric, **attributes)
    tag = FLOAT_PIXEL_DATA if array.dtype.kind == "f" else PIXEL_DATA
    image = render_frame(array, photometric, header, pixels_of(header, tag), frame, presentation or Presentation())
    return np.asarray(image).tolist()


def item(**attributes: Any) -> Dataset:
    """An item of a sequence."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def image_in(content: bytes) -> Image.Image:
    """A JPEG, PNG or GIF."""
    return Image.open(BytesIO(content))


class Images:
    """A storage space in memory and its DICOMweb service: rendered resources and WADO-URI."""

    def __init__(self, store: MemoryObjectStore | None = None) -> None:
        self.store, self.recorded = store or MemoryObjectStore(), Recorded()
        self.workers = PixelWorkers(2)
        routers = [
            rendered_router(self.recorded, self.store, PROVIDER, self.workers),
            wado_uri_router(self.recorded, self.store, PROVIDER, self.workers),
        ]
        self.app = Guard(build_app(prefixes(None, routers)))

    async def keep(self, content: bytes | str, **changes: str) -> InstanceLocation:
        """Store and record a Part 10 file, or one of those that pydicom ships by its name; ``changes``: of what is
        recorded of it."""
        if isinstance(content, str):
            location = await keep(self.store, self.recorded, pydicom_file(content))
            self.recorded.locations.pop()
        else:
            location = (await stored(content, self.store))[1]
        self.recorded.locations.append(moved(location, **changes))
        return self.recorded.locations[-1]

    def client(self) -> httpx.AsyncClient:
        """Of the service, below ``/dicomweb/``."""
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://images.test/dicomweb/", timeout=60
        )


def path_of(location: InstanceLocation) -> str:
    """Of the instance below ``/dicomweb/``."""
    return instance_url("", location).lstrip("/")
