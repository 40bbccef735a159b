"""How the queue of an edge stands, as its own JetStream tells."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from nats.aio.client import Client
from nats.js import JetStreamContext

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.adapters.nats.relay_settings import RelaySettings
from imaging_services.adapters.nats.relay_streams import ensure_relay
from imaging_services.domain.errors import BackendUnavailable
from imaging_services.domain.relay.spool import SpoolState

_SECONDS = 5.0
_FRACTION = re.compile(r"\.(\d{1,6})\d*")


class RelaySpool:
    """What waits for the far side. ``client`` returns the connection, or raises ``BackendUnavailable``."""

    def __init__(self, settings: RelaySettings, client: Callable[[], Client]) -> None:
        self._settings, self._client, self._subjects = settings, client, settings.sends

    async def prepare(self) -> None:
        """Make its streams exist, so that whoever empties them finds them. Raises a RetryableError."""
        settings = self._settings
        js = self._client().jetstream(domain=settings.send_domain)
        await ensure_relay(js, self._subjects, settings.stream_max_bytes, settings.stream_replicas)

    async def state(self) -> SpoolState:
        """As it stands. Raises a RetryableError."""
        client = self._client()
        api = f"$JS.{self._settings.send_domain}.API" if self._settings.send_domain else "$JS.API"
        with nats_errors("looking at the spool"):
            account = await _asked(client, f"{api}.INFO")
            listed = await _asked(client, f"{api}.STREAM.LIST")
        queues = {self._subjects.stream, self._subjects.urgent_stream}
        states = [one["state"] for one in listed.get("streams") or [] if one["config"]["name"] in queues]
        waiting = sum(one["messages"] for one in states)
        instances = waiting - await self._ends(client) if waiting else 0
        now = datetime.now(UTC)
        ages = [(now - _moment(one["first_ts"])).total_seconds() for one in states if one["messages"]]
        return SpoolState(max(instances, 0), int(account["storage"]), max([0.0, *ages]) if instances else 0.0)

    async def _ends(self, client: Client) -> int:
        js: JetStreamContext = client.jetstream(domain=self._settings.send_domain, timeout=_SECONDS)
        with nats_errors("looking at the spool"):
            info = await js.stream_info(self._subjects.stream, subjects_filter=self._subjects.end("*"))
        return sum((info.state.subjects or {}).values())


async def _asked(client: Client, subject: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((await client.request(subject, b"", timeout=_SECONDS)).data)
    if "error" in answer:
        raise BackendUnavailable(f"JetStream says: {answer['error'].get('description')}")
    return answer


def _moment(text: str) -> datetime:
    """The server writes nanoseconds, Python reads microseconds."""
    return datetime.fromisoformat(_FRACTION.sub(r".\1", text))
