"""Handing an event to a subscriber's webhook: the CloudEvent as it is, in binary mode."""

from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.events.http_binding import encode_http
from imaging_services.domain.http import HttpClient


class Webhook:
    """A URL that takes CloudEvents by POST and answers 2xx when it has them."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    async def post(self, event: CloudEvent) -> None:
        """Return when it has answered 2xx. Raises what the client makes of any other answer, or of none."""
        headers, body = encode_http(event)
        await self._http.request("POST", headers=headers, content=body)
