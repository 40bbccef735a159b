"""HEAD on every resource that has GET: the same headers without the body (RFC 9110 section 9.3.2).

The application sees a GET with a mark. Bodies that are written as they come are then not made at all, so a status or a
header that only their making would tell is left out; a document that is at hand loses its bytes on the way out.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEAD_ONLY = "imaging.head_only"
"""Key of the scope: true when nobody wants the body."""


class Head:
    """ASGI middleware around compression, whose headers belong to the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as ASGI application."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            scope["method"] = "HEAD"  # for the server, which counts no bytes then, and for the access log
            if message["type"] != "http.response.body":
                await send(message)
            elif not message.get("more_body", False):
                await send({"type": "http.response.body", "body": b""})

        # A range is one of GET's bytes (RFC 9110 section 14.2).
        scope["headers"] = [one for one in scope["headers"] if one[0] != b"range"]
        scope["method"], scope[HEAD_ONLY] = "GET", True
        await self._app(scope, receive, without_body)
