"""Deleting instances from the manifest (``delete_instances`` in ``migrations``)."""

from collections.abc import Collection

import orjson

from imaging_services.adapters.postgres.outbox import queue
from imaging_services.adapters.postgres.pool import Connection
from imaging_services.adapters.postgres.sql import statement
from imaging_services.domain.manifest.deletion import Deletion


async def delete(connection: Connection, deletion: Deletion, queued: Collection[str]) -> None:
    """Delete in one transaction, and queue the event when there was something to delete and its type is ``queued``.
    What is gone already, or was replaced by other bytes meanwhile, is left as it is."""
    instances = [
        {"series": one.seriesInstanceUID, "instance": one.sopInstanceUID, "object": one.objectName}
        for one in deletion.instances
    ]
    parameters = {
        "study": deletion.study_instance_uid,
        "provider": deletion.provider,
        "instances": orjson.dumps(instances).decode(),
    }
    async with connection.transaction():
        cursor = await connection.execute(statement("delete_instances"), parameters)
        deleted = await cursor.fetchone()
        if deleted and deleted[0] and deletion.event.type in queued:
            await queue(connection, deletion.event)
