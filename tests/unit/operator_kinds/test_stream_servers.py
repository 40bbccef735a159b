"""Which NATS server the operator itself calls when streams are to go."""

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from imaging_operator import streams
from imaging_operator.errors import NotYet
from imaging_operator.kinds import KINDS
from imaging_services.adapters.nats.settings import NatsSettings
from imaging_services.domain.errors import BackendUnavailable
from support.operator_kinds import case, wanted


@pytest.mark.parametrize(
    ("given", "called"),
    [
        ("imaging-nats:4222", "imaging-nats.imaging.svc.cluster.local:4222"),
        ("nats://nats.messaging.svc:4222", "nats://nats.messaging.svc:4222"),
    ],
)
async def test_the_operator_calls_the_server_of_the_resources_namespace(
    given: str, called: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls: list[str] = []

    def connect(settings: NatsSettings, **_: Any) -> AbstractAsyncContextManager[Any]:
        urls.append(settings.url)
        raise BackendUnavailable("nobody there")

    monkeypatch.setattr(streams, "connect", connect)
    it = case("plain/event-driven-ingestion")
    resource, *others = it.documents()
    resource["spec"]["natsUrl"] = given
    with pytest.raises(NotYet, match=r"imaging_core-events.* cannot be removed: nobody there"):
        await streams.JetStreamRemover(KINDS, it.settings)(wanted(resource, others))
    assert urls == [called]
