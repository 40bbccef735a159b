"""What a local stack consists of: ports, credentials and the environment of each service."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from pydantic import SecretStr

from imaging_services.adapters.s3.settings import BucketSettings
from imaging_services.local.bindings import Binding
from imaging_services.local.capabilities import write_capability_lists
from imaging_services.local.data_folder import DataFolder, State
from imaging_services.local.nats_server import NatsServer
from imaging_services.local.ports import LOOPBACK
from imaging_services.local.postgres_server import PostgresServer
from imaging_services.local.processes import Program
from imaging_services.local.readiness import http_status
from imaging_services.local.s3_server import PORTS, REGION, S3Server

DEFAULT_PORTS = {
    "dimse-proxy": 11112,
    "dimse-ingestion": 11113,
    "dicomweb": 8080,
    "events": 8081,
    "nats": 4222,
    "postgres": 15432,
    "s3": 8333,
}
SERVICES = ("event-processor", "dimse-ingestion", "dimse-proxy", "dicomweb")
PROXY_AE, INGESTION_AE = "DIMSE", "DIMSE_INGESTION"
DATABASE = DATABASE_USER = "imaging"
BUCKET = "imaging"
STREAM = "imaging"
START_SECONDS = 60
_LOCATION_KEYS = ("BUCKET_HOST", "BUCKET_PORT", "BUCKET_REGION", "BUCKET_NAME")


@dataclass(frozen=True)
class Subscriber:
    """A binding service by its unique name."""

    name: str
    binding: Binding


@dataclass(frozen=True)
class StackConfiguration:
    """One local stack."""

    folder: DataFolder
    state: State
    revisioning_delay: float | None
    subscribers: Sequence[Subscriber]
    workers: int | None = None

    @property
    def nats(self) -> NatsServer:
        """The message server."""
        return NatsServer(self.folder.path / "nats", self.port("nats"))

    @property
    def postgres(self) -> PostgresServer:
        """The database server."""
        return PostgresServer(
            self.folder.path / "postgres", self.port("postgres"), DATABASE_USER, self.state.postgres_password
        )

    @property
    def s3(self) -> S3Server:
        """The object store."""
        ports = {name: self.port(name) for name in PORTS}
        state = self.state
        return S3Server(self.folder.path / "s3", ports, state.s3_access_key_id, state.s3_secret_access_key)

    def port(self, name: str) -> int:
        """The port chosen for ``name``."""
        return self.state.ports[name]

    def url(self, name: str, path: str = "") -> str:
        """``http://127.0.0.1:<port of name><path>``."""
        return f"http://{LOOPBACK}:{self.port(name)}{path}"

    def endpoints(self) -> dict[str, object]:
        """Everything of the ready file but ``pids``."""
        state = self.state
        return {
            "dimse_proxy": {"host": LOOPBACK, "port": self.port("dimse-proxy"), "ae_title": PROXY_AE},
            "dimse_ingestion": {"host": LOOPBACK, "port": self.port("dimse-ingestion"), "ae_title": INGESTION_AE},
            "dicomweb": self.url("dicomweb", "/dicomweb"),
            "stow": self.url("dicomweb", "/stow-rs"),
            "wado": self.url("dicomweb", "/wado-rs"),
            "events": self.url("events", "/"),
            "query": self.url("events", "/query"),
            "nats": self.nats.url,
            "postgres": f"postgresql://{DATABASE_USER}:{quote(state.postgres_password)}@{LOOPBACK}:{self.port('postgres')}/{DATABASE}",
            "s3": {
                "endpoint": self.s3.endpoint,
                "bucket": BUCKET,
                "access_key_id": state.s3_access_key_id,
                "secret_access_key": state.s3_secret_access_key,
                "region": REGION,
            },
        }

    def service_programs(self) -> list[Program]:
        """The services, each ready when its ``/readyz`` says so."""
        bucket = self._bucket_files()
        several = {"WORKERS": str(self.workers)} if self.workers else {}
        programs = [
            self._program("event-processor", "event-driven-ingestion", self._event_processor()),
            self._program("dimse-ingestion", "dimse-ingestion", {**bucket, **self._dimse_ingestion(), **several}),
            self._program("dicomweb", "dicomweb-ingestion", {**bucket, **self._dicomweb(), **several}),
            self._program("dimse-proxy", "dimse-proxy", {**self._dimse_proxy(), **several}),
        ]
        for one in self.subscribers:
            environment = {**self._events(one.name), **bucket, **self._database(), **one.binding.environment}
            programs.append(self._program(one.name, one.binding.component, environment))
        return programs

    def _program(self, name: str, component: str, environment: Mapping[str, str]) -> Program:
        health = self.port(f"{name}.health")
        common = {
            "LOG_FORMAT": "console",
            "HEALTH_HOST": LOOPBACK,
            "HEALTH_PORT": str(health),
            "PYTHONUNBUFFERED": "1",
            "EVENT_SOURCE": f"{name}.{self.state.name}",
        }
        return Program(
            name=name,
            command=[sys.executable, "-P", "-m", "imaging_services.cli", "run", component],
            log_file=self.folder.logs / f"{name}.log",
            ready=lambda: http_status(health, "/readyz") == 200,
            environment={**common, **environment},
            start_seconds=START_SECONDS,
        )

    def _events(self, source: str) -> dict[str, str]:
        return {
            "EVENTS_NATS_URL": self.nats.url,
            "EVENTS_STREAM": STREAM,
            "EVENT_SOURCE": f"{source}.{self.state.name}",
        }

    def _database(self) -> dict[str, str]:
        return {
            "DB_KIND": "postgresql",
            "DB_HOST": LOOPBACK,
            "DB_PORT": str(self.port("postgres")),
            "DB_NAME": DATABASE,
            "DB_USER": DATABASE_USER,
            "DB_PASS": self.state.postgres_password,
        }

    def _recording(self) -> dict[str, str]:
        return {**self._database(), "EVENTS_RECORDED_BY": "service"}

    @property
    def bucket(self) -> BucketSettings:
        """The storage space's keys, as the services read them from files."""
        return BucketSettings(
            BUCKET_HOST=f"http://{LOOPBACK}",
            BUCKET_PORT=self.port("s3"),
            BUCKET_REGION=REGION,
            BUCKET_NAME=BUCKET,
            AWS_ACCESS_KEY_ID=self.state.s3_access_key_id,
            AWS_SECRET_ACCESS_KEY=SecretStr(self.state.s3_secret_access_key),
        )

    def _bucket_files(self) -> dict[str, str]:
        bucket = self.bucket
        location = {key: str(getattr(bucket, key)) for key in _LOCATION_KEYS}
        credentials = {
            "AWS_ACCESS_KEY_ID": self.state.s3_access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.state.s3_secret_access_key,
        }
        return {
            "BUCKET_CONFIG_PATH": str(self.folder.write_keys("bucket-config", location)),
            "BUCKET_SECRET_PATH": str(self.folder.write_keys("bucket-secret", credentials)),
            "PROVIDER_NAME": self.state.name,
            "WADO_INTERNAL_ENDPOINT": self.url("dicomweb", "/wado-rs"),
            "WADO_EXTERNAL_ENDPOINT": self.url("dicomweb", "/wado-rs"),
        }

    def _event_processor(self) -> dict[str, str]:
        environment = {
            **self._events("event-processor"),
            **self._database(),
            "HTTP_HOST": LOOPBACK,
            "HTTP_PORT": str(self.port("events")),
        }
        if self.revisioning_delay is not None:
            environment["IMAGING_INGESTION_STUDY_AGGREGATION_TIMEOUTSECONDS"] = f"{self.revisioning_delay:g}"
        return environment

    def _dimse(self, channel: str, ae_title: str, port: int) -> dict[str, str]:
        return {
            "DIMSE_HOST": LOOPBACK,
            "DIMSE_PORT": str(port),
            "DIMSE_AE": ae_title,
            "DIMSE_NATS_URL": self.nats.url,
            "DIMSE_NATS_SUBJECT_CHANNEL": channel,
            "DIMSE_CONFIG_PATH": str(write_capability_lists(self.folder.path / "config" / "dimse")),
            "DIMSE_ACCEPT_UNKNOWN_SOP_CLASSES": "true",
        }

    def _dimse_ingestion(self) -> dict[str, str]:
        return {
            **self._events("dimse-ingestion"),
            **self._recording(),
            **self._dimse("B", INGESTION_AE, self.port("dimse-ingestion")),
            "QUERY_ENDPOINT": self.url("events", "/query"),
        }

    def _dimse_proxy(self) -> dict[str, str]:
        return {**self._events("dimse-proxy"), **self._dimse("A", PROXY_AE, self.port("dimse-proxy"))}

    def _dicomweb(self) -> dict[str, str]:
        return {
            **self._events("dicomweb"),
            **self._recording(),
            "QUERY_ENDPOINT": self.url("events", "/query"),
            "HTTP_HOST": LOOPBACK,
            "HTTP_PORT": str(self.port("dicomweb")),
        }


def port_names(subscribers: Sequence[Subscriber]) -> list[str]:
    """Every port that a stack with these subscribers needs."""
    services = [*SERVICES, *(one.name for one in subscribers)]
    return list(dict.fromkeys([*DEFAULT_PORTS, *PORTS, *(f"{name}.health" for name in services)]))
