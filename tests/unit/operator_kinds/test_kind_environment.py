"""What a pod would get, given to the settings of the service that runs in it: it would start."""

import base64
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import AliasChoices, SecretStr
from pydantic_settings import BaseSettings

from imaging_operator.kinds.common import Json
from imaging_services import runtime
from imaging_services.adapters.dimse.capability_lists import DEFAULT_SOP_CLASSES, load_uid_lists
from imaging_services.adapters.s3.settings import read_bucket_settings
from imaging_services.apps.dimse_ingestion.settings import Settings as DimseIngestion
from imaging_services.apps.dimse_proxy.settings import Settings as DimseProxy
from imaging_services.apps.event_bridge.locations import EdgeLocations
from imaging_services.cli.components import COMPONENTS
from imaging_services.domain.events.subjects import MailboxSubjects
from support.operator_kinds import Case, case, cases

LIBPQ = {"PGSSLCERT", "PGSSLKEY"}
BROKER = "http://broker-ingress.knative-eventing.svc.cluster.local/imaging/core-broker"


class Pod:
    """One container as the kubelet would start it: variables, and files below ``root``."""

    def __init__(self, it: Case, workload: Json, container: Json, root: Path) -> None:
        self._documents = [*it.build(), *it.documents()]
        self.workload, self.container = workload, container
        self.environment = self._environment(workload)
        self._mount(workload["spec"]["template"]["spec"], root)

    @property
    def settings_class(self) -> type[BaseSettings]:
        """Of the component that it runs."""
        package = f"imaging_services.apps.{COMPONENTS[self.container['args'][1]]}"
        found: type[BaseSettings] = importlib.import_module(f"{package}.settings").Settings
        return found

    def settings(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """The settings as ``imaging run`` loads them."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        return runtime.load_settings(self.settings_class)  # type: ignore[type-var]  # each is a ServiceSettings

    def _environment(self, workload: Json) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in self.container.get("envFrom", []):
            for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if key in source:
                    found |= self._data(kind, source[key]["name"])
        for each in self.container.get("env", []):
            reference = each.get("valueFrom", {}).get("secretKeyRef")
            found[each["name"]] = (
                self._data("Secret", reference["name"])[reference["key"]] if reference else each["value"]
            )
        bindings = [each["spec"]["subject"]["name"] for each in self._documents if each["kind"] == "SinkBinding"]
        if workload["metadata"]["name"] in bindings:
            found["K_SINK"] = BROKER
        return found

    def _mount(self, pod: Json, root: Path) -> None:
        """Put the files below ``root``, and let the variables that name them point there."""
        volumes = {each["name"]: each for each in pod["volumes"]}
        for mount in self.container["volumeMounts"]:
            folder = root / mount["mountPath"].lstrip("/")
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in self._files(volumes[mount["name"]]).items():
                path = folder / name
                path.write_text(str(root) + text if text.startswith("/etc/") else text)
        for name, value in self.environment.items():
            if value.startswith("/etc/"):
                self.environment[name] = f"{root}{value}"

    def _files(self, volume: Json) -> dict[str, str]:
        if "projected" in volume:
            return {key: text for source in volume["projected"]["sources"] for key, text in self._files(source).items()}
        if "configMap" in volume:
            return self._data("ConfigMap", volume["configMap"]["name"])
        return self._data("Secret", volume["secret"]["secretName"]) if "secret" in volume else {}

    def _data(self, kind: str, name: str) -> dict[str, str]:
        (found,) = [each for each in self._documents if each["kind"] == kind and each["metadata"]["name"] == name][-1:]
        data: Mapping[str, str] = found.get("data") or {}
        if kind == "ConfigMap":
            return dict(data)
        return {key: base64.b64decode(value).decode() for key, value in data.items()}


def pods_of(it: Case, root: Path) -> list[Pod]:
    """The containers that run our image."""
    workloads = [each for each in it.build() if "template" in each.get("spec", {})]
    return [
        Pod(it, workload, container, root / workload["metadata"]["name"] / container["name"])
        for workload in workloads
        for container in workload["spec"]["template"]["spec"]["containers"]
        if container.get("args")
    ]


def variables(settings: type[BaseSettings]) -> set[str]:
    """Names that the settings read."""
    names = set(settings.model_fields)
    for field in settings.model_fields.values():
        if isinstance(field.validation_alias, AliasChoices):
            names |= {str(each) for each in field.validation_alias.choices}
    return names


CASES = [pytest.param(each, id=each.name) for each in cases()]


@pytest.mark.parametrize("it", CASES)
def test_the_services_accept_their_environment(it: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pods = pods_of(it, tmp_path)
    assert pods or it.name == "knative/instance-binding-own-image"
    for pod in pods:
        with monkeypatch.context() as patch:
            settings = pod.settings(patch)
        check_all(settings, pod)


def check_all(settings: Any, pod: Pod) -> None:
    """What the service itself checks before it starts."""
    if hasattr(settings, "check"):
        settings.check()
    if hasattr(settings, "BUCKET_CONFIG_PATH"):
        bucket = read_bucket_settings(settings.BUCKET_CONFIG_PATH, settings.BUCKET_SECRET_PATH)
        assert bucket.BUCKET_NAME == "north-images"
        assert bucket.endpoint == "http://s3.storage.svc"
        assert bucket.ca_certificates() is None or bucket.BUCKET_CA_FILE is not None
    if isinstance(settings, DimseProxy | DimseIngestion):
        assert load_uid_lists(settings.DIMSE_CONFIG_PATH)[0]
    if getattr(settings, "EVENTS_NATS_URL", None):
        assert settings.event_nats("test").url == settings.EVENTS_NATS_URL
        assert settings.event_subjects().event_stream
    if getattr(settings, "BRIDGE_ROLE", "") == "hub":
        EdgeLocations(settings.EDGE_LOCATION_CONFIG, MailboxSubjects(settings.NATS_SUBJECT_ROOT))
    for name, value in pod.environment.items():
        if name.endswith("_FILE") or name in {"DB_SSLROOTCERT", *LIBPQ}:
            assert Path(value).is_file(), name


@pytest.mark.parametrize("it", CASES)
def test_every_variable_that_the_operator_sets_is_read(it: Case, tmp_path: Path) -> None:
    for pod in pods_of(it, tmp_path):
        given = {each["name"] for each in pod.container["env"]}
        assert given - variables(pod.settings_class) - LIBPQ == set()


@pytest.mark.parametrize("it", CASES)
def test_own_config_maps_hold_only_what_is_read(it: Case, tmp_path: Path) -> None:
    """The keys of the ConfigMaps that the operator makes for ``envFrom``."""
    made = {each["metadata"]["name"]: each for each in it.build() if each["kind"] == "ConfigMap"}
    for pod in pods_of(it, tmp_path):
        for source in pod.container.get("envFrom", []):
            document = made.get(source.get("configMapRef", {}).get("name", ""))
            assert set((document or {}).get("data", {})) - variables(pod.settings_class) == set()


def settings_of(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: str = "") -> Any:
    """The settings of one case's container."""
    found = [pod for pod in pods_of(case(name), tmp_path) if not container or pod.container["name"] == container]
    return found[0].settings(monkeypatch)


def test_the_event_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = settings_of("plain/event-driven-ingestion", tmp_path, monkeypatch)
    assert it.quiet.total_seconds() == 45
    assert it.EVENT_SOURCE == "core-event-processor.imaging.svc.cluster.local"
    assert (it.database.host, it.database.name, it.database.max_size) == (
        "postgres.imaging.svc.cluster.local",
        "manifest-1",
        8,
    )
    assert (it.HTTP_HOST, it.HTTP_PORT, it.HEALTH_PORT) == ("0.0.0.0", 8080, 9090)
    assert it.EVENTS_STREAM == "imaging_core"


def test_fields_and_overrides_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = settings_of("plain/event-driven-ingestion-all-fields", tmp_path, monkeypatch)
    assert it.EVENT_SOURCE == "processor.example.org", "serviceConfigName wins over what the operator derives"
    assert (it.LOG_LEVEL, it.DRAIN_SECONDS, it.RECORD_BATCH_SIZE) == ("debug", 90, 100)
    assert (it.EVENTS_STREAM, it.EVENTS_REPLICAS, it.EVENTS_RETENTION_DAYS) == ("hospital", 3, 60)
    assert SecretStr("jwt") == it.EVENTS_NATS_AUTH_TOKEN
    assert it.HTTP_CONCURRENCY == 100


def test_stow_hands_in_events_and_wado_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stow = settings_of("plain/dicomweb-ingestion-service", tmp_path, monkeypatch, "stow")
    assert (stow.DICOMWEB_ROLE, stow.K_SINK) == ("stow", "http://core-broker.imaging.svc.cluster.local")
    assert stow.WADO_INTERNAL_ENDPOINT == "http://space1-wado.imaging.svc.cluster.local/wado-rs"
    assert stow.WADO_EXTERNAL_ENDPOINT == stow.WADO_INTERNAL_ENDPOINT


def test_wado_asks_the_event_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wado = settings_of("plain/dicomweb-ingestion-service", tmp_path, monkeypatch, "wado")
    assert wado.QUERY_ENDPOINT == "http://core-event-processor.imaging.svc.cluster.local/query"
    assert (wado.DICOMWEB_ROLE, wado.PROVIDER_NAME, wado.WADO_EXTERNAL_ENDPOINT) == ("wado", "north", None)


def test_the_public_address_is_in_events_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "plain/dicomweb-ingestion-service-all-fields"
    assert settings_of(name, tmp_path, monkeypatch, "wado").WADO_EXTERNAL_ENDPOINT == (
        "https://dicomweb.example.org/wado-rs"
    )
    assert settings_of(name, tmp_path, monkeypatch, "stow").HTTP_CONCURRENCY == 7


def test_bindings_take_their_own_name_as_consumer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stow = settings_of("plain/instance-binding-stow", tmp_path, monkeypatch)
    assert (stow.mode, stow.BINDING_NAME, stow.HTTP_PORT) == ("STOW_ENDPOINT", "archive-instance-binding", None)
    assert stow.INSECURE_SKIP_VERIFY is False


def test_a_name_in_the_binding_config_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = settings_of("plain/instance-binding-c-store", tmp_path, monkeypatch)
    assert (store.target, store.BINDING_NAME, store.TARGET_CONCURRENCY) == (
        "dimse://PACS@pacs.example.org:104",
        "to-pacs",
        4,
    )


def test_an_own_image_gets_events_posted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = settings_of("plain/instance-binding-own-image", tmp_path, monkeypatch, "dispatcher")
    assert (it.mode, it.WEBHOOK_ENDPOINT, it.TARGET_CONCURRENCY) == ("WEBHOOK_ENDPOINT", "http://127.0.0.1:8080/", 2)


@pytest.mark.parametrize("key", ["STOW_ENDPOINT", "DIMSE_TARGET_HOST", "WEBHOOK_ENDPOINT"])
def test_targets_of_an_own_image_are_not_the_dispatchers(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it, value = case("plain/instance-binding-own-image"), "https://archive.example.org/studies"
    documents = it.documents()
    documents[0]["spec"] |= {"env": [{"name": key, "value": value}], "serviceConfigName": "overrides"}
    overrides = {"kind": "ConfigMap", "metadata": {"name": "overrides"}, "data": {"STOW_ENDPOINT": value}}
    monkeypatch.setattr(Case, "documents", lambda _: [*documents, overrides])
    binding, dispatcher = containers_of(it)
    assert {"name": key, "value": value} in binding["env"]
    pod = Pod(it, workload_of(it), dispatcher, tmp_path)
    assert pod.settings(monkeypatch).mode == "WEBHOOK_ENDPOINT"
    assert pod.environment["WEBHOOK_ENDPOINT"] == "http://127.0.0.1:8080/"


def workload_of(it: Case) -> Json:
    """The only Deployment of a case."""
    (found,) = [each for each in it.build() if each["kind"] == "Deployment"]
    return found


def containers_of(it: Case) -> list[Json]:
    """Its containers."""
    found: list[Json] = workload_of(it)["spec"]["template"]["spec"]["containers"]
    return found


def test_on_knative_bindings_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = settings_of("knative/instance-binding", tmp_path, monkeypatch)
    assert (it.EVENTS_NATS_URL, it.HTTP_PORT, it.HTTP_HOST) == (None, 8080, "0.0.0.0")
    assert it.HEALTH_PORT not in (8012, 8013, 8022, 8112, 9090, 9091), "ports of Knative's sidecar"


def test_the_proxy_keeps_the_meaning_of_its_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = settings_of("plain/dimse-proxy", tmp_path, monkeypatch)
    assert (it.DIMSE_TARGET_AE, it.DIMSE_TARGET_HOST, it.DIMSE_TARGET_PORT) == (
        "PACS",
        "pacs.hospital.example.org",
        104,
    )
    assert (it.DIMSE_AE, it.DIMSE_DELIVERY_MODE, it.DIMSE_NATS_SUBJECT_CHANNEL) == ("DIMSE", "durable", "A")
    assert it.relay("dimse-proxy", 60).receives.channel == "A"
    assert load_uid_lists(it.DIMSE_CONFIG_PATH)[0] == DEFAULT_SOP_CLASSES


def test_the_proxys_new_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = settings_of("plain/dimse-proxy-all-fields", tmp_path, monkeypatch)
    assert (it.DIMSE_AE, it.DIMSE_TARGET_AE, it.DIMSE_DELIVERY_MODE) == ("CLOUD", "PACS", "confirmed")
    assert (it.DIMSE_NATS_SEND_DOMAIN, it.DIMSE_NATS_RECEIVE_DOMAIN, it.DIMSE_STREAM_REPLICAS) == ("edge", "hub", 3)
    assert (it.DIMSE_MAX_ASSOCIATIONS, it.WORKERS) == (50, 2)


def test_the_ingestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = settings_of("plain/dimse-ingestion-service", tmp_path, monkeypatch)
    assert (it.DIMSE_AE, it.PROVIDER_NAME, it.DIMSE_NATS_DISABLED) == ("CLOUD", "north", False)
    assert it.WADO_EXTERNAL_ENDPOINT == "https://space1-wado.imaging.example.org/wado-rs"
    assert it.relay("dimse-ingestion", 60).nats.auth_token == SecretStr("jwt")


def test_the_ingestion_without_nats_listens_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = settings_of("plain/dimse-ingestion-service-direct", tmp_path, monkeypatch)
    assert (it.DIMSE_NATS_DISABLED, it.DIMSE_AE) == (True, "DIMSE_INGESTION")
    assert it.DIMSE_ALLOWED_CALLING_AE == "CT1,MR1"


def test_the_bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = settings_of("plain/event-bridge-hub", tmp_path, monkeypatch)
    assert (hub.mailbox, hub.EVENTS_STREAM, hub.NATS_SUBJECT_ROOT) == ("hub", "imaging_core", "events")
    mailboxes, log = hub.mailbox_policy(), hub.event_policy()
    assert (mailboxes.replicas, mailboxes.domain, log.replicas, log.domain) == (3, "hub", 1, None)


def test_an_edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = settings_of("plain/event-bridge-edge", tmp_path, monkeypatch)
    assert (edge.mailbox, edge.NATS_SUBJECT_ROOT, edge.EVENTS_STREAM) == ("north", "wan.events", "hospital")
    assert edge.NATS_TLS_CA_FILE != edge.EVENTS_NATS_TLS_CA_FILE


def test_what_the_edi_wants_of_its_log_is_no_wish_about_the_mailboxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = case("plain/event-bridge-edge")
    documents = it.documents()
    for each in documents:
        if each["kind"] == "DicomEventDrivenIngestion":
            each["spec"] |= {"streamReplicas": 3, "eventRetentionDays": 60, "jetStreamDomain": "north"}
    monkeypatch.setattr(Case, "documents", lambda _: documents)
    (pod,) = pods_of(it, tmp_path)
    bridge = pod.settings(monkeypatch)
    log, mailboxes = bridge.event_policy(), bridge.mailbox_policy()
    assert (log.replicas, log.retention.days, log.domain) == (3, 60, "north")
    assert (mailboxes.replicas, mailboxes.retention.days, mailboxes.domain) == (1, 30, None)
