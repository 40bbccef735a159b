"""/healthz, /readyz and /metrics."""

import asyncio
from collections.abc import Callable

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from imaging_operator.settings import OperatorSettings
from imaging_services.adapters.http.server import serve


def health_app(is_alive: Callable[[], bool], is_ready: Callable[[], bool]) -> FastAPI:
    """For the kubelet. A replica that waits for the lead is ready: it does its part."""
    app = FastAPI(openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> Response:
        return _answer("ok", "stuck", good=is_alive())

    @app.get("/readyz")
    async def readyz() -> Response:
        return _answer("ready", "not ready", good=is_ready())

    return app


def metrics_app() -> FastAPI:
    """For Prometheus."""
    app = FastAPI(openapi_url=None)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


async def serve_web(
    settings: OperatorSettings, is_alive: Callable[[], bool], is_ready: Callable[[], bool], stop: asyncio.Event
) -> None:
    """Both servers, until ``stop``; a port of 0 turns one off. Raises ``SettingsError`` for a port in use."""
    async with asyncio.TaskGroup() as tasks:
        if settings.HEALTH_PORT:
            app = health_app(is_alive, is_ready)
            tasks.create_task(serve(app, settings.HEALTH_HOST, settings.HEALTH_PORT, stop))
        if settings.METRICS_PORT:
            tasks.create_task(serve(metrics_app(), settings.METRICS_HOST, settings.METRICS_PORT, stop))


def _answer(good_text: str, bad_text: str, *, good: bool) -> Response:
    return Response(good_text if good else bad_text, status_code=200 if good else 503)
