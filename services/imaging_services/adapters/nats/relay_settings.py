"""Settings of the DIMSE relay over NATS, and the environment variables they come from."""

from pydantic import BaseModel, ConfigDict, Field

from imaging_services.adapters.nats.settings import NatsSettings, RelayConnection
from imaging_services.domain.relay.subjects import RelaySubjects, other_channel


class RelaySettings(BaseModel):
    """One end of a relay: it listens on its own channel and speaks to the other. Apps fill it from ``DIMSE_*``."""

    model_config = ConfigDict(frozen=True)

    nats: NatsSettings
    channel: str = Field(description="own channel, A or B")
    inline_limit: int = Field(default=8 * 1024 * 1024, ge=0, description="longest data set inside a message, bytes")
    stream_max_bytes: int = Field(default=0, ge=0, description="stream and bucket each hold so many bytes, 0: no limit")
    stream_replicas: int = Field(default=1, ge=1, le=5, description="servers of a cluster that hold each message")
    send_domain: str | None = Field(default=None, description="JetStream domain of the stream this end fills")
    receive_domain: str | None = Field(default=None, description="JetStream domain of the stream this end empties")
    max_in_flight: int = Field(default=32, ge=1, description="stores at work at a time")
    max_in_flight_bytes: int = Field(default=64 * 1024 * 1024, ge=1, description="their bytes held in memory")
    ack_wait_seconds: float = Field(default=30, gt=0, description="a receiver silent for so long has lost its message")
    max_tries: int = Field(default=10, ge=1, description="tries of a store that is answered with a failure")
    outage_seconds: float = Field(default=7 * 86400, gt=0, description="how long an unreachable receiver is waited for")
    object_age_seconds: float = Field(
        default=86400, gt=0, description="unreferenced objects older than this are removed"
    )
    drain_seconds: float = Field(default=10, gt=0, description="time to finish stores at work when stopping")

    @property
    def receives(self) -> RelaySubjects:
        """Names of what this end receives."""
        return RelaySubjects(self.nats.subject_root, self.channel)

    @property
    def sends(self) -> RelaySubjects:
        """Names of what this end sends."""
        return RelaySubjects(self.nats.subject_root, other_channel(self.channel))

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
        default=None, description="JetStream domain that keeps what this end receives; default that of the server"
    )
    DIMSE_INLINE_LIMIT: int = Field(
        default=8 * 1024 * 1024,
        ge=0,
        description="longest data set inside a message, bytes; the server's max_payload bounds it too, longer ones go "
        "through an object bucket",
    )
    DIMSE_STREAM_MAX_BYTES: int = Field(
        default=0,
        ge=0,
        description="most bytes that wait in the stream, and as many in the bucket; when full, C-STORE gets A700H; "
        "0 leaves it to the server",
    )
    DIMSE_STREAM_REPLICAS: int = Field(default=1, ge=1, le=5, description="copies of each message in a NATS cluster")
    DIMSE_MAX_IN_FLIGHT: int = Field(default=32, ge=1, description="relayed instances at work at a time")
    DIMSE_MAX_IN_FLIGHT_BYTES: int = Field(
        default=64 * 1024 * 1024, ge=1, description="most bytes of them held in memory"
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

    def relay(self, name: str, drain_seconds: float) -> RelaySettings:
        """The relay's settings; ``name`` shows in the server's monitoring. Raises ``SettingsError``."""
        nats = self.relay_nats(name, reply_timeout_seconds=self.DIMSE_NATS_REPLY_TIMEOUTSECONDS)
        other_channel(self.DIMSE_NATS_SUBJECT_CHANNEL)
        RelaySubjects(self.DIMSE_NATS_SUBJECT_ROOT, self.DIMSE_NATS_SUBJECT_CHANNEL)
        return RelaySettings(
            nats=nats,
            channel=self.DIMSE_NATS_SUBJECT_CHANNEL,
            inline_limit=self.DIMSE_INLINE_LIMIT,
            stream_max_bytes=self.DIMSE_STREAM_MAX_BYTES,
            stream_replicas=self.DIMSE_STREAM_REPLICAS,
            send_domain=self.DIMSE_NATS_SEND_DOMAIN,
            receive_domain=self.DIMSE_NATS_RECEIVE_DOMAIN,
            max_in_flight=self.DIMSE_MAX_IN_FLIGHT,
            max_in_flight_bytes=self.DIMSE_MAX_IN_FLIGHT_BYTES,
            ack_wait_seconds=self.DIMSE_ACK_WAIT_SECONDS,
            max_tries=self.DIMSE_MAX_TRIES,
            outage_seconds=self.DIMSE_OUTAGE_HOURS * 3600,
            object_age_seconds=self.DIMSE_OBJECT_AGE_HOURS * 3600,
            drain_seconds=drain_seconds,
        )
