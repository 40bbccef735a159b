"""Serving an ASGI application until told to stop. Why uvicorn: docs/decisions/2026-11-21-http-server.md."""

import asyncio
import contextlib
import math
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from imaging_services.adapters.http.files import FileProtocol
from imaging_services.domain.errors import SettingsError


async def serve(
    app: Any,
    host: str,
    port: int,
    stop: asyncio.Event,
    *,
    drain_seconds: float = 15,
    reuse_port: bool = False,
    listening: Callable[[int], None] | None = None,
) -> None:
    """Serve until ``stop`` is set, then finish requests under way for at most ``drain_seconds``.

    Port 0 takes a free port; ``listening`` is told which, once connections are accepted. ``reuse_port`` lets several
    processes share the port. Raises ``SettingsError``
    when the address cannot be listened on.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="none",
        http=FileProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_keep_alive=45,
        timeout_graceful_shutdown=math.ceil(drain_seconds),
        server_header=False,
    )
    server = uvicorn.Server(config)
    with contextlib.closing(_listener(host, port, reuse_port)) as listener:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_until(stop, server))
            if listening is not None:
                listening(listener.getsockname()[1])
            await server._serve(sockets=[listener])  # serve() would take over the process's signals
            stop.set()


async def _until(stop: asyncio.Event, server: uvicorn.Server) -> None:
    await stop.wait()
    server.should_exit = True


def _listener(host: str, port: int, reuse_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(2048)  # from here on connections queue, even before the server accepts them
    except OSError as error:
        listener.close()
        raise SettingsError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None
    listener.set_inheritable(True)
    return listener
