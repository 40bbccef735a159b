"""Serving an ASGI application until told to stop."""

import asyncio
import contextlib
import socket
from typing import Any

import uvicorn


async def serve(app: Any, host: str, port: int, stop: asyncio.Event, *, drain_seconds: float = 15) -> None:
    """Serve until ``stop`` is set, then finish requests under way for at most ``drain_seconds``."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="none",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_keep_alive=45,
        timeout_graceful_shutdown=int(drain_seconds),
        server_header=False,
    )
    server = uvicorn.Server(config)
    with contextlib.closing(_listener(host, port)) as listener:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_until(stop, server))
            await server._serve(sockets=[listener])  # serve() would take over the process's signals
            stop.set()


async def _until(stop: asyncio.Event, server: uvicorn.Server) -> None:
    await stop.wait()
    server.should_exit = True


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.bind((host, port))
    listener.set_inheritable(True)
    return listener
