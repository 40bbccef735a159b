"""The OHIF viewer as its npm package has it, served with a configuration of the test's; ``make ohif`` installs it."""

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from support.http_server import serving

DOCUMENT = Path(__file__).parents[2] / "docs" / "dicomweb.md"
BUILD = Path(sys.prefix) / "ohif" / "node_modules" / "@ohif" / "app" / "dist"


def configuration(dicomweb: str) -> str:
    """The ``app-config.js`` of docs/dicomweb.md for a service, without the viewer's question on the first visit."""
    (documented,) = re.findall(r"^```js\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)
    assert "https://images.example.org/dicomweb" in documented
    written = documented.replace("https://images.example.org/dicomweb", dicomweb)
    return written + "window.config.investigationalUseDialog = { option: 'never' };"


def viewer(dicomweb: str) -> Starlette:
    """The static build; paths that are no file are the viewer's own and get its page."""

    async def answer(request: Request) -> Response:
        path = (BUILD / request.url.path.lstrip("/")).resolve()
        if request.url.path == "/app-config.js":
            return Response(configuration(dicomweb), media_type="text/javascript")
        return FileResponse(path if path.is_file() and path.is_relative_to(BUILD) else BUILD / "index.html")

    return Starlette(routes=[Route("/{path:path}", answer)])


@asynccontextmanager
async def ohif(dicomweb: str) -> AsyncIterator[str]:
    """The URL of a viewer that uses this service."""
    if not (BUILD / "index.html").exists():
        pytest.fail("OHIF, the viewer of this test, is not installed: run `make ohif`; it needs npm", pytrace=False)
    async with serving(viewer(dicomweb)) as url:
        yield url
