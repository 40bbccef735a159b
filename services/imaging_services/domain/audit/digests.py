"""Whether an object's bytes are those that its name says."""

import asyncio
import hashlib

from imaging_services.domain.ports import ObjectStore

_OFF_LOOP = 256 * 1024


async def digest_in(space: ObjectStore, key: str) -> tuple[str, int]:
    """Hex SHA-256 and length of an object, read as blocks. Raises ``NotFound``."""
    digest, size = hashlib.sha256(), 0
    async for block in space.stream(key):
        size += len(block)
        if len(block) >= _OFF_LOOP:
            await asyncio.to_thread(digest.update, block)
        else:
            digest.update(block)
    return digest.hexdigest(), size
