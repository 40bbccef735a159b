"""Images that were opened a moment ago: a viewer asks for one frame after the other, and the header of a multi-frame
image with functional groups takes longer to read than a frame takes to render."""

import asyncio
from collections import OrderedDict

from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.apps.dicomweb_ingestion.rendered_documents import is_document, open_document
from imaging_services.apps.dicomweb_ingestion.rendered_sources import ImageSource, Source, open_image
from imaging_services.domain.dicom.transfer_syntaxes import is_deflated
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ObjectStore
from imaging_services.domain.retrieve.stored_file import SMALL_FILE

_KEPT = 8
"""Opened images; of each the header is held, the pixels are not."""


class Sources:
    """Opens instances of a storage space. Object names are digests, so what is kept never goes stale."""

    def __init__(self, store: ObjectStore, workers: PixelWorkers) -> None:
        self._store, self._workers = store, workers
        self._images: OrderedDict[str, asyncio.Task[ImageSource]] = OrderedDict()

    async def open(self, location: InstanceLocation) -> Source:
        """An instance of any kind. Raises ``NotFound`` when its object has vanished, ``CannotTranscode`` when there is
        nothing to show."""
        if is_document(location):
            return await open_document(self._store, self._workers, location)
        return await self.image(location)

    async def image(self, location: InstanceLocation) -> ImageSource:
        """An instance with frames; opened once for all who ask at the same time. Raises as ``open``."""
        name = location.object_name
        opening = self._images.get(name)
        if opening is None:
            opening = asyncio.create_task(open_image(self._store, self._workers, location))
            opening.add_done_callback(lambda done: self._opened(name, done))
            self._images[name] = opening
            if len(self._images) > _KEPT:
                self._images.popitem(last=False)
        self._images.move_to_end(name)
        return await asyncio.shield(opening)  # who goes away does not take it from the others

    def _opened(self, name: str, done: asyncio.Task[ImageSource]) -> None:
        """What could not be opened is tried again by the next, and what is quickly opened is not kept."""
        failed = done.cancelled() or done.exception() is not None
        if (failed or not _worth_keeping(done.result())) and self._images.get(name) is done:
            del self._images[name]


def _worth_keeping(image: ImageSource) -> bool:
    """Multi-frame images whose content is not held in memory, as that of small and of deflated objects is."""
    file = image.frames.file
    in_memory = file.size <= SMALL_FILE or is_deflated(file.location.transfer_syntax_uid)
    return image.frames.count > 1 and not in_memory
