"""A real HTTP server in the test's own event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from imaging_services.adapters.http.server import serve


@asynccontextmanager
async def serving(app: Any, port: int = 0) -> AsyncIterator[str]:
    """The base URL of the application, served while the context lasts."""
    stop = asyncio.Event()
    bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(app, "127.0.0.1", port, stop, drain_seconds=5, listening=bound.set_result))
        try:
            yield f"http://127.0.0.1:{await bound}"
        finally:
            stop.set()
