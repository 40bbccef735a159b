"""Settings of the operator; field names are the environment's variables."""

from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class OperatorSettings(BaseSettings):
    """What the operator needs to know beside the custom resources."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    IMAGE: str = Field(
        default="imaging-ingestion:0.1.0",
        min_length=1,
        description="container image of every component whose resource names none",
    )
    WATCH_NAMESPACE: str = Field(
        default="", description="namespaces to watch, separated by commas; empty watches the whole cluster"
    )
    CLUSTER_DOMAIN: str = Field(default="cluster.local", min_length=1, description="domain of the cluster's DNS")
    KNATIVE: bool = Field(
        default=False, description="Knative for resources that do not say so themselves: on or off; off is plain"
    )
    KEDA: bool = Field(
        default=True, description="scale on the JetStream consumers' lag where KEDA is installed: on or off"
    )
    NETWORK_POLICY: bool = Field(
        default=True, description="NetworkPolicies for the pods of resources that do not say so themselves: on or off"
    )
    EVENTS_NATS_URL: str = Field(
        default="", description="NATS server of events, for every DicomEventDrivenIngestion without natsUrl"
    )
    EVENTS_NATS_TLS_ENABLED: bool = Field(default=False, description="TLS towards it; certificates are verified")
    EVENTS_NATS_SUBJECT_ROOT: str = Field(default="imaging", min_length=1, description="first token of its subjects")
    EVENTS_NATS_MONITORING: str = Field(
        default="",
        description="host:port of its monitoring endpoint, which KEDA asks for the lag; empty: its host, port 8222",
    )
    EVENTS_NATS_ACCOUNT: str = Field(default="$G", min_length=1, description="NATS account of the streams, for KEDA")
    API_TIMEOUT_SECONDS: float = Field(default=15, gt=0, description="wait for an answer of the API server, seconds")
    RETRY_SECONDS: float = Field(
        default=5,
        gt=0,
        description="wait before a failed reconciliation is tried again, seconds; doubles with each failure up to 60",
    )
    RESYNC_SECONDS: float = Field(
        default=60,
        gt=0,
        description="every resource is looked at, and repaired, at least this often, seconds",
    )
    DISCOVERY_SECONDS: float = Field(
        default=30,
        gt=0,
        description="how often it is looked for what the cluster offers (Knative, KEDA, our CRDs), seconds",
    )
    WORKERS: int = Field(default=4, ge=1, le=64, description="resources reconciled at the same time")
    STREAM_REMOVAL_SECONDS: float = Field(
        default=600,
        gt=0,
        description="how long removing the streams of a deleted resource with retention Delete is tried, seconds; "
        "then the resource goes, and an Event names what is left",
    )
    POD_NAMESPACE: str = Field(default="", description="namespace of the operator; empty: the one of its credentials")
    POD_NAME: str = Field(default="", description="name of the operator's pod, its name as leader; empty: the host's")
    LEADER_ELECTION: bool = Field(
        default=True, description="on: of several replicas one works, the others wait; off: only for one replica"
    )
    LEASE_NAME: str = Field(default="imaging-ingestion-operator", min_length=1, description="Lease of the leader")
    LEASE_SECONDS: float = Field(
        default=15, ge=1, description="a leader that is silent for so long has lost the lead, seconds"
    )
    METRICS_HOST: str = Field(default="0.0.0.0", description="address of /metrics")  # noqa: S104 - Prometheus asks it
    METRICS_PORT: int = Field(default=8080, ge=0, le=65535, description="its port; 0 turns it off")
    HEALTH_HOST: str = Field(default="0.0.0.0", description="address of /healthz and /readyz")  # noqa: S104 - kubelet
    HEALTH_PORT: int = Field(default=8081, ge=0, le=65535, description="their port; 0 turns them off")
    LOG_LEVEL: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least level logged")
    LOG_FORMAT: Literal["json", "console"] = Field(default="json", description="json lines, or text for people")

    @field_validator("WATCH_NAMESPACE")
    @classmethod
    def _names(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",")]
        if any(names) and not all(names):
            raise ValueError("an empty name between commas: write a,b")
        return ",".join(names)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces to watch; empty means all."""
        return tuple(filter(None, self.WATCH_NAMESPACE.split(",")))
