"""Settings of the DIMSE relay over NATS, and the environment variables they come from."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from imaging_services.adapters.nats.settings import NatsSettings, RelayConnection
from imaging_services.domain.errors import SettingsError
from imaging_services.domain.relay.subjects import RelaySubjects, other_channel

ALL_DOMAINS = "*"
_INLINE_FAR = 1024 * 1024  # bytes; a slow line is to carry a message well within the ack wait
_DOMAIN = re.compile(r"[A-Za-z0-9_-]{1,128}")


def is_domain(name: str) -> bool:
    """It may be the name of a JetStream domain."""
    return _DOMAIN.fullmatch(name) is not None


class RelaySettings(BaseModel):
    """One end of a relay: it listens on its own channel and speaks to the other. Apps fill it from ``DIMSE_*``."""

    model_config = ConfigDict(frozen=True)

    nats: NatsSettings
    channel: str = Field(description="own channel, A or B")
    inline_limit: int = Field(default=8 * 1024 * 1024, ge=0, description="longest data set inside a message, bytes")
    stream_max_bytes: int = Field(default=0, ge=0, description="stream and bucket each hold so many bytes, 0: no limit")
    stream_replicas: int = Field(default=1, ge=1, le=5, description="servers of a cluster that hold each message")
    send_domain: str | None = Field(default=None, description="JetStream domain of the stream this end fills")
    receive_domain: str | None = Field(
        default=None,
        description="JetStream domains of the streams this end empties beside the server's own, by commas; * for those "
        "that announce themselves",
    )
    compression_level: int | None = Field(default=None, description="Zstandard's; None: nothing is compressed")
    max_in_flight: int = Field(default=32, ge=1, description="stores at work at a time; urgent: a quarter more")
    max_in_flight_bytes: int = Field(
        default=64 * 1024 * 1024, ge=1, description="bytes fetched and not done; urgent: a quarter more"
    )
    ack_wait_seconds: float = Field(default=30, gt=0, description="a receiver silent for so long has lost its message")
    max_tries: int = Field(default=10, ge=1, description="tries of a store that is answered with a failure")
    outage_seconds: float = Field(default=7 * 86400, gt=0, description="how long an unreachable receiver is waited for")
    object_age_seconds: float = Field(
        default=86400, gt=0, description="unreferenced objects older than this are removed"
    )
    drain_seconds: float = Field(default=10, gt=0, description="time to finish stores at work when stopping")

    def check(self) -> None:
        """Raise ``SettingsError`` for domains that cannot be any."""
        if self.send_domain and not is_domain(self.send_domain):
            raise SettingsError(
                f"DIMSE_NATS_SEND_DOMAIN: {self.send_domain!r} is no JetStream domain of letters, digits, - and _"
            )
        _ = self.receive_domains

    @property
    def receives(self) -> RelaySubjects:
        """Names of what this end receives."""
        return RelaySubjects(self.nats.subject_root, self.channel)

    @property
    def sends(self) -> RelaySubjects:
        """Names of what this end sends."""
        return RelaySubjects(self.nats.subject_root, other_channel(self.channel))

    @property
    def receive_domains(self) -> tuple[str, ...]:
        """The JetStream domains named, beside the server's own. Raises ``SettingsError`` for what names none."""
        names = [name.strip() for name in (self.receive_domain or "").split(",") if name.strip()]
        for name in names:
            if name != ALL_DOMAINS and not is_domain(name):
                raise SettingsError(
                    f"DIMSE_NATS_RECEIVE_DOMAIN: {name!r} is no JetStream domain: names of letters, digits, - and _, "
                    "separated by commas, or * for those that announce themselves"
                )
        return tuple(dict.fromkeys(name for name in names if name != ALL_DOMAINS))

    @property
    def discovers_domains(self) -> bool:
        """JetStream domains that announce themselves are emptied, too."""
        return ALL_DOMAINS in (name.strip() for name in (self.receive_domain or "").split(","))

    @property
    def sole_receive_domain(self) -> str | None:
        """The one JetStream domain named, where exactly one is; None for the server's own."""
        names = self.receive_domains
        return names[0] if len(names) == 1 and not self.discovers_domains else None

    @property
    def silence_seconds(self) -> float:
        """A side that hears nothing for so long takes the other for gone."""
        return self.nats.reply_timeout_seconds


class RelayVariables(RelayConnection):
    """The ``DIMSE_NATS_*`` variables and the relay's own: mix into an app's ``Settings``."""

    DIMSE_NATS_SUBJECT_CHANNEL: str = Field(default="A", description="own channel, A or B; the other end has the other")
    DIMSE_NATS_REPLY_TIMEOUTSECONDS: float = Field(
        default=60, gt=0, description="silence of the other end or of NATS after which a request has failed, seconds"
    )
    DIMSE_NATS_CHUNK_SIZE: int = Field(
        default=262144, ge=1, description="of the former protocol, bytes; accepted, without effect"
    )
    DIMSE_NATS_MAXCONTROLLINE: int = Field(
        default=2048, ge=1, description="of the former client, bytes; accepted, without effect"
    )
    DIMSE_NATS_TRACECONNECTION: bool = Field(
        default=False, description="of the former client; accepted, use LOG_LEVEL=debug instead"
    )
    DIMSE_NATS_SEND_DOMAIN: str | None = Field(
        default=None, description="JetStream domain that keeps what this end sends; default that of the server"
    )
    DIMSE_NATS_RECEIVE_DOMAIN: str | None = Field(
        default=None,
        description="JetStream domains that keep what this end receives, beside the server's own: names separated by "
        "commas, or * for all that announce themselves; default the server's own alone",
    )
    DIMSE_INLINE_LIMIT: int = Field(
        default=8 * 1024 * 1024,
        ge=0,
        description="longest data set inside a message, bytes; the server's max_payload bounds it too, longer ones go "
        "through an object bucket; default 1048576 where DIMSE_NATS_SEND_DOMAIN is set, as at the edge",
    )
    DIMSE_RELAY_COMPRESSION: Literal["off", "auto"] = Field(
        default="off",
        description="auto: data sets that this end sends travel compressed, without loss (Zstandard), where that makes "
        "them smaller; the other end has to be of a version that knows this setting, too",
    )
    DIMSE_RELAY_COMPRESSION_LEVEL: int = Field(
        default=1, ge=1, le=19, description="Zstandard's; 1 is fastest, and others make little of CT any smaller"
    )
    DIMSE_STREAM_MAX_BYTES: int = Field(
        default=0,
        ge=0,
        description="most bytes that wait in the stream, and as many in the bucket; when full, C-STORE gets A700H; "
        "0 leaves it to the server",
    )
    DIMSE_STREAM_REPLICAS: int = Field(default=1, ge=1, le=5, description="copies of each message in a NATS cluster")
    DIMSE_MAX_IN_FLIGHT: int = Field(
        default=32,
        ge=1,
        description="relayed instances at work at a time, urgent ones not counted, which have a quarter more; up to "
        "eight times as many are fetched ahead",
    )
    DIMSE_MAX_IN_FLIGHT_BYTES: int = Field(
        default=64 * 1024 * 1024,
        ge=1,
        description="most bytes of them held in memory, of all JetStream domains together; urgent ones have a "
        "quarter more",
    )
    DIMSE_ACK_WAIT_SECONDS: float = Field(
        default=30, ge=1, description="a receiver silent for so long has died: its instances go to another, seconds"
    )
    DIMSE_MAX_TRIES: int = Field(
        default=10, ge=1, description="tries of an instance that is refused for now, before it becomes a dead letter"
    )
    DIMSE_OUTAGE_HOURS: float = Field(
        default=168, gt=0, description="how long an unreachable target or storage is waited for, hours"
    )
    DIMSE_OBJECT_AGE_HOURS: float = Field(
        default=24, gt=0, description="objects that no message names are removed when older than this, hours"
    )

    def inline_limit(self, *, own_domain: bool) -> int:
        """Bytes; of a sender that has a JetStream domain of its own, whose messages cross a line, or has none."""
        given = "DIMSE_INLINE_LIMIT" in self.model_fields_set
        return _INLINE_FAR if own_domain and not given else self.DIMSE_INLINE_LIMIT

    def relay(self, name: str, drain_seconds: float) -> RelaySettings:
        """The relay's settings; ``name`` shows in the server's monitoring. Raises ``SettingsError``."""
        nats = self.relay_nats(name, reply_timeout_seconds=self.DIMSE_NATS_REPLY_TIMEOUTSECONDS)
        other_channel(self.DIMSE_NATS_SUBJECT_CHANNEL)
        RelaySubjects(self.DIMSE_NATS_SUBJECT_ROOT, self.DIMSE_NATS_SUBJECT_CHANNEL)
        settings = RelaySettings(
            nats=nats,
            channel=self.DIMSE_NATS_SUBJECT_CHANNEL,
            inline_limit=self.inline_limit(own_domain=bool(self.DIMSE_NATS_SEND_DOMAIN)),
            stream_max_bytes=self.DIMSE_STREAM_MAX_BYTES,
            stream_replicas=self.DIMSE_STREAM_REPLICAS,
            send_domain=self.DIMSE_NATS_SEND_DOMAIN,
            receive_domain=self.DIMSE_NATS_RECEIVE_DOMAIN,
            compression_level=self.DIMSE_RELAY_COMPRESSION_LEVEL if self.DIMSE_RELAY_COMPRESSION == "auto" else None,
            max_in_flight=self.DIMSE_MAX_IN_FLIGHT,
            max_in_flight_bytes=self.DIMSE_MAX_IN_FLIGHT_BYTES,
            ack_wait_seconds=self.DIMSE_ACK_WAIT_SECONDS,
            max_tries=self.DIMSE_MAX_TRIES,
            outage_seconds=self.DIMSE_OUTAGE_HOURS * 3600,
            object_age_seconds=self.DIMSE_OBJECT_AGE_HOURS * 3600,
            drain_seconds=drain_seconds,
        )
        settings.check()
        return settings
