"""``DicomInstanceBinding`` and ``DicomStudyBinding``: a container subscribed to events of one type."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from imaging_operator.builders.certificates import authorities_file, authorities_mounts
from imaging_operator.builders.environment import Value, config_map_env, secret_env, value_of
from imaging_operator.builders.knative import HEALTH_PORT as KNATIVE_HEALTH_PORT
from imaging_operator.builders.knative import knative_reference, knative_service, service_reference, trigger
from imaging_operator.builders.pod import DICOM_PORT, HEALTH_PORT, HTTP_PORT, Container, Port, Size
from imaging_operator.builders.service import service
from imaging_operator.builders.workload import Scale, Workload, service_account
from imaging_operator.errors import Wrong
from imaging_operator.kinds.common import STREAM, Json, Kind, Reference, Wanted
from imaging_operator.kinds.references import certificates, event_driven_ingestion, events_of_edi, service_config
from imaging_operator.kinds.shared import (
    Edi,
    arguments,
    checksum,
    drain_seconds,
    edi_of,
    environment,
    fixed_ports,
    image_of,
    of_this_version,
    plain_objects,
    pod_options,
    require_knative,
    service_config_env,
    service_scale,
)
from imaging_operator.specs.common import ServiceGroup
from imaging_operator.specs.instance_binding import InstanceBindingSpec
from imaging_operator.specs.study_binding import StudyBindingSpec
from imaging_services.domain.nats_names import token

_SIZE = Size(cpu="50m", memory="128Mi")
_DRAIN_SECONDS = 30
_MOST_CONCURRENT = 256
_TARGET = "target"
_OBJECTS = ("binding_config", "binding_secret")
"""References that are in the binding's environment."""

BindingSpec = InstanceBindingSpec | StudyBindingSpec
Resource = Wanted[Any]


@dataclass(frozen=True, slots=True)
class _Binding:
    """Where the two kinds differ."""

    component: str
    trigger_suffix: str
    event_type: str
    title: str
    group: Callable[[Any], ServiceGroup]
    targets: Sequence[str]
    """Keys that say where the default image sends to."""

    def name(self, name: str) -> str:
        """Name of the workload, and of the durable consumer."""
        return f"{name}-{self.component}"


_INSTANCE = _Binding(
    component="instance-binding",
    trigger_suffix="instance-trigger",
    event_type="DicomAvailableEvent",
    title="Instance Binding",
    group=lambda spec: spec.instance_binding,
    targets=("STOW_ENDPOINT", "DIMSE_TARGET_HOST", "WEBHOOK_ENDPOINT"),
)
_STUDY = _Binding(
    component="study-binding",
    trigger_suffix="study-trigger",
    event_type="StudyRevisionEvent",
    title="Study Binding",
    group=lambda spec: spec.study_binding,
    targets=("FHIR_ENDPOINT", "WEBHOOK_ENDPOINT"),
)


def _references(it: _Binding, spec: BindingSpec) -> Sequence[Reference]:
    return [
        Reference("binding_secret", "Secret", spec.binding_secret_name, f"Missing {it.title} Secret"),
        Reference("binding_config", "ConfigMap", spec.binding_config_name, f"Missing {it.title} Config"),
        event_driven_ingestion(spec),
        *events_of_edi(),
        *certificates("target_tls", spec.target_tls, "Target"),
        *service_config(spec),
    ]


def _build(it: _Binding, wanted: Resource, settings: Any) -> Sequence[Json]:
    edi = edi_of(wanted, settings)
    knative = _on_knative(wanted, edi)
    if knative and not edi.knative:
        raise Wrong(
            f"spec.knative is true, but the events of DicomEventDrivenIngestion {edi.name} are not on Knative: "
            "set knative alike in both"
        )
    if edi.knative:
        require_knative(wanted)
    _target(it, wanted)  # the binding could not start with what is no address
    workload = _workload(it, wanted, settings, edi, knative=knative)
    if knative:
        found = [
            service_account(wanted, workload),
            knative_service(wanted, workload, concurrency=it.group(wanted.spec).concurrency),
        ]
    else:
        served = any(each.port for each in workload.containers)
        services = [service(wanted, workload, port=80, port_name="http")] if served else []
        urgent = of_this_version(it.group(wanted.spec).image, settings)
        lag = edi.log.lag(_consumer(it, wanted), settings, urgent=urgent) if edi.log else None
        found = plain_objects(wanted, settings, workload, services, lag=lag)
    if edi.knative:
        subscriber = knative_reference(workload.name) if knative else service_reference(workload.name)
        found.append(_trigger(it, wanted, edi, subscriber))
    return found


def _on_knative(wanted: Resource, edi: Edi) -> bool:
    wish: bool | None = wanted.spec.knative
    return edi.knative if wish is None else wish


def _trigger(it: _Binding, wanted: Resource, edi: Edi, subscriber: Json) -> Json:
    return trigger(
        wanted,
        f"{wanted.name}-{it.trigger_suffix}",
        it.component,
        broker_name=edi.broker,
        event_type=it.event_type,
        subscriber=subscriber,
    )


def _workload(it: _Binding, wanted: Resource, settings: Any, edi: Edi, *, knative: bool) -> Workload:
    spec, group = wanted.spec, it.group(wanted.spec)
    image, ours = image_of(group.image, settings)
    subscriber = _subscriber(it, wanted, edi, image, ours=ours, knative=knative)
    dispatcher = [] if ours or edi.log is None else [_dispatcher(it, wanted, settings, edi)]
    return Workload(
        name=it.name(wanted.name),
        component=it.component,
        containers=[subscriber, *dispatcher],
        options=pod_options(spec, group),
        checksum=checksum(wanted),
        scale=Scale(group.min_replicas, group.max_replicas) if knative else service_scale(group),
        # The dispatcher does not get the binding's own settings.
        drain_seconds=max(
            drain_seconds(wanted, _DRAIN_SECONDS, _OBJECTS),
            drain_seconds(wanted, _DRAIN_SECONDS) if dispatcher else 0,
        ),
    )


def _subscriber(it: _Binding, wanted: Resource, edi: Edi, image: str, *, ours: bool, knative: bool) -> Container:
    """The binding itself. Ours takes events from the log; what somebody else wrote takes them by POST, as under
    Knative."""
    spec = wanted.spec
    takes_posts = edi.log is None or not ours
    fixed, values = dict[str, str](), dict[str, Value]()
    if ours:
        fixed = fixed_ports(KNATIVE_HEALTH_PORT if knative else HEALTH_PORT)
        values = {} if knative else _concurrency(it, wanted)
        values["DRAIN_SECONDS"] = str(_DRAIN_SECONDS)
        if edi.log:
            del fixed["HTTP_PORT"]
            values |= edi.log.consumer() | _consumer_name(it, wanted)
    return Container(
        name="binding",
        image=image,
        arguments=arguments(it.component, ours=ours),
        environment=environment(wanted, fixed=fixed, values=values, chosen=_chosen(spec), objects=_OBJECTS),
        size=_SIZE,
        env_from=[
            config_map_env(spec.binding_config_name),
            secret_env(spec.binding_secret_name),
            *service_config_env(spec),
        ],
        mounts=[*authorities_mounts(spec.target_tls, _TARGET), *(edi.log.mounts() if edi.log and ours else [])],
        port=Port("http", HTTP_PORT) if takes_posts else None,
    )


def _dispatcher(it: _Binding, wanted: Resource, settings: Any, edi: Edi) -> Container:
    """Stands for the Trigger: takes events from the log and posts them to an image of the user's own beside it.

    Targets that the user sets are the image's own: with a second one the dispatcher would not start.
    """
    assert edi.log is not None
    values: dict[str, Value] = {
        "DRAIN_SECONDS": str(_DRAIN_SECONDS),
        **edi.log.consumer(),
        "BINDING_NAME": _consumer(it, wanted),
        **_concurrency(it, wanted),
    }
    targets = dict.fromkeys(it.targets, "") | {"WEBHOOK_ENDPOINT": f"http://127.0.0.1:{HTTP_PORT}/"}
    fixed = fixed_ports() | targets
    del fixed["HTTP_PORT"]
    return Container(
        name="dispatcher",
        image=settings.IMAGE,
        arguments=arguments(it.component, ours=True),
        environment=environment(wanted, fixed=fixed, values=values, reserved=targets),
        size=_SIZE,
        env_from=service_config_env(wanted.spec),
        mounts=edi.log.mounts(),
    )


def _concurrency(it: _Binding, wanted: Resource) -> dict[str, Value]:
    """Without Knative, simultaneous requests are simultaneous deliveries."""
    wish = it.group(wanted.spec).concurrency
    return {"TARGET_CONCURRENCY": str(min(wish, _MOST_CONCURRENT))} if wish else {}


def _chosen(spec: BindingSpec) -> dict[str, Value]:
    tls = spec.target_tls
    chosen: dict[str, Value] = {}
    if path := authorities_file(tls, _TARGET):
        chosen["TARGET_CA_FILE"] = path
    if tls and tls.insecure_skip_verify:
        chosen["INSECURE_SKIP_VERIFY"] = "true"
    return chosen


def _consumer_name(it: _Binding, wanted: Resource) -> dict[str, Value]:
    """The consumer's name, unless the user says it by its other name."""
    return {"BINDING_NAME": it.name(wanted.name)} if not _said(wanted, "EVENTS_CONSUMER") else {}


def _consumer(it: _Binding, wanted: Resource) -> str:
    """The durable consumer's name as the container will have it."""
    return _said(wanted, "BINDING_NAME") or _said(wanted, "EVENTS_CONSUMER") or it.name(wanted.name)


def _said(wanted: Resource, variable: str) -> str:
    """What the user sets a variable to, wherever; empty when nowhere."""
    found = wanted.found
    in_env = [each.value for each in wanted.spec.env if each.name == variable]
    objects = (found.get("service_config"), None), (found.get("binding_config"), found.get("binding_secret"))
    return next(filter(None, [*in_env, *(value_of(variable, *pair) for pair in objects)]), "")


def _status(it: _Binding, wanted: Resource, settings: Any, observed: Sequence[Json]) -> Json:
    found: Json = {}
    if target := _target(it, wanted):
        found["target"] = target
    if "edi" in wanted.found and not edi_of(wanted, settings).knative:
        found["consumer"] = _consumer(it, wanted)
    return found


def _target(it: _Binding, wanted: Resource) -> str:
    for key in it.targets:
        value = _said(wanted, key)
        if value and key == "DIMSE_TARGET_HOST":
            title = _said(wanted, "DIMSE_TARGET_AE") or "DIMSE"
            return f"dimse://{title}@{value}:{_said(wanted, 'DIMSE_TARGET_PORT') or DICOM_PORT}"
        if value:
            return _without_secrets(key, value)
    return ""


def _without_secrets(key: str, address: str) -> str:
    """A URL for everybody's eyes: no user, no query. Raises ``Wrong`` for what is none, which may hold a password."""
    try:
        parts = urlsplit(address)
    except ValueError:
        raise Wrong(f"{key} is not a URL: write http://<host>/<path> or https://<host>/<path>") from None
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _durable(it: _Binding, wanted: Resource, settings: Any) -> Sequence[str]:
    if "edi" not in wanted.found:
        return []
    edi = edi_of(wanted, settings)
    if edi.log is None:
        return []
    return [f"consumer {token(_consumer(it, wanted))} of {STREAM}{edi.log.subjects.event_stream}"]


def _kind(it: _Binding, name: str, plural: str, spec: type[Any]) -> Kind[Any]:
    return Kind(
        name=name,
        plural=plural,
        spec=spec,
        references=lambda _, spec: _references(it, spec),
        build=lambda wanted, settings: _build(it, wanted, settings),
        status=lambda wanted, settings, observed: _status(it, wanted, settings, observed),
        durable=lambda wanted, settings: _durable(it, wanted, settings),
        makes_streams_of_others=True,
    )


INSTANCE_BINDING = _kind(_INSTANCE, "DicomInstanceBinding", "dicominstancebindings", InstanceBindingSpec)
STUDY_BINDING = _kind(_STUDY, "DicomStudyBinding", "dicomstudybindings", StudyBindingSpec)
