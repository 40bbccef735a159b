"""Running DIMSE proxies."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from imaging_services.apps.dimse_proxy.main import main
from imaging_services.apps.dimse_proxy.settings import Settings
from support.ports import a_free_port
from support.services import running


@asynccontextmanager
async def proxy(url: str, root: str, channel: str, target: int | None = None, **more: Any) -> AsyncIterator[int]:
    """A running proxy; gives its port."""
    port = int(more.pop("DIMSE_PORT", 0)) or a_free_port()
    settings = Settings(
        DIMSE_HOST="127.0.0.1",
        DIMSE_PORT=port,
        DIMSE_NATS_URL=url,
        DIMSE_NATS_SUBJECT_ROOT=root,
        DIMSE_NATS_SUBJECT_CHANNEL=channel,
        DIMSE_TARGET_HOST="127.0.0.1" if target else None,
        DIMSE_TARGET_PORT=target or 0,
        DRAIN_SECONDS=3,
        **{"DIMSE_TARGET_AE": "STORESCP", "DIMSE_NATS_REPLY_TIMEOUTSECONDS": 10, **more},
    )
    async with running(main, settings):
        yield port
