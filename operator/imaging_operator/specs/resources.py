"""The seven kinds, as the API server gets to know them: names, columns, and what its schema cannot take from models."""

from dataclasses import dataclass

from imaging_operator.specs.common import Spec
from imaging_operator.specs.dicomweb_ingestion_service import (
    DicomwebIngestionServiceSpec,
    DicomwebIngestionServiceStatus,
)
from imaging_operator.specs.dimse_ingestion_service import DimseIngestionServiceSpec, DimseIngestionServiceStatus
from imaging_operator.specs.dimse_proxy import DimseProxySpec, DimseProxyStatus
from imaging_operator.specs.event_bridge import EventBridgeSpec, EventBridgeStatus
from imaging_operator.specs.event_driven_ingestion import EventDrivenIngestionSpec, EventDrivenIngestionStatus
from imaging_operator.specs.instance_binding import InstanceBindingSpec, InstanceBindingStatus
from imaging_operator.specs.model import Rule
from imaging_operator.specs.status import Status
from imaging_operator.specs.study_binding import StudyBindingSpec, StudyBindingStatus

GROUP = "imaging-ingestion.alvearie.org"
VERSION = "v1alpha1"
CATEGORY = "imaging"

_LONGEST_LABEL = 63  # of a Service's name, and of a label's value
_SERVICE_NAME = "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
_LETTERS = "letters, digits and -, and begins with a letter"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of ``kubectl get``; a wide one shows with ``-o wide`` only."""

    name: str
    path: str
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind."""

    kind: str
    plural: str
    short_name: str
    spec: type[Spec]
    status: type[Status]
    name_rules: tuple[Rule, ...]
    """What ``metadata.name`` must be, since the names of Services and labels are made of it."""
    columns: tuple[Column, ...]
    """Beside Ready, Phase, Message and Age."""
    scaled: str = ""
    """Member of the spec that holds ``replicas``, for the scale subresource."""

    @property
    def crd_name(self) -> str:
        """Name of the CustomResourceDefinition."""
        return f"{self.plural}.{GROUP}"


def _new(rule: str, message: str) -> Rule:
    """A rule for resources that are being created: a resource that an older CRD let in keeps its name, and its status
    and its finalizers have to stay writable."""
    return Rule(f"oldSelf.hasValue() || {rule}", message)


def _length(suffix: str) -> Rule:
    most = _LONGEST_LABEL - len(suffix)
    return _new(f"size(self.metadata.name) <= {most}", f"the name is longer than {most} characters")


def _service_names(suffix: str) -> tuple[Rule, ...]:
    """Services are called ``<name><suffix>``."""
    return (_length(suffix), _new(_SERVICE_NAME, f"Services are named after it: the name has lower case {_LETTERS}"))


_INGESTION = Column("Ingestion", ".spec.dicomEventDrivenIngestionName", wide=True)

RESOURCES = (
    Resource(
        kind="DicomEventDrivenIngestion",
        plural="dicomeventdriveningestions",
        short_name="edi",
        spec=EventDrivenIngestionSpec,
        status=EventDrivenIngestionStatus,
        name_rules=_service_names("-event-processor"),
        columns=(Column("Broker", ".status.brokerEndpoint"),),
    ),
    Resource(
        kind="DicomwebIngestionService",
        plural="dicomwebingestionservices",
        short_name="dicomweb",
        spec=DicomwebIngestionServiceSpec,
        status=DicomwebIngestionServiceStatus,
        name_rules=_service_names("-stow"),
        columns=(
            Column("Provider", ".spec.providerName"),
            Column("WADO", ".status.wadoServiceExternalEndpoint"),
            Column("STOW", ".status.stowServiceExternalEndpoint", wide=True),
            _INGESTION,
        ),
    ),
    Resource(
        kind="DicomInstanceBinding",
        plural="dicominstancebindings",
        short_name="dib",
        spec=InstanceBindingSpec,
        status=InstanceBindingStatus,
        name_rules=_service_names("-instance-binding"),
        columns=(Column("Target", ".status.target"), _INGESTION),
    ),
    Resource(
        kind="DicomStudyBinding",
        plural="dicomstudybindings",
        short_name="dsb",
        spec=StudyBindingSpec,
        status=StudyBindingStatus,
        name_rules=_service_names("-study-binding"),
        columns=(Column("Target", ".status.target"), _INGESTION),
    ),
    Resource(
        kind="DimseIngestionService",
        plural="dimseingestionservices",
        short_name="dis",
        spec=DimseIngestionServiceSpec,
        status=DimseIngestionServiceStatus,
        name_rules=(
            _length("-dimse"),
            Rule(
                f"!has(self.spec.direct) || !self.spec.direct || {_SERVICE_NAME}",
                f"with direct: true a Service is named after it: the name has lower case {_LETTERS}",
            ),
        ),
        columns=(
            Column("AE Title", ".spec.applicationEntityTitle"),
            Column("Provider", ".spec.providerName"),
            Column("Endpoint", ".status.dimseEndpoint", wide=True),
            _INGESTION,
        ),
        scaled="dimseService",
    ),
    Resource(
        kind="DimseProxy",
        plural="dimseproxies",
        short_name="dproxy",
        spec=DimseProxySpec,
        status=DimseProxyStatus,
        name_rules=_service_names("-dimse-proxy"),
        columns=(
            Column("Endpoint", ".status.dimseEndpoint"),
            Column("Target", ".spec.targetDimseHost"),
            Column("Channel", ".spec.natsSubjectChannel", wide=True),
        ),
        scaled="proxy",
    ),
    Resource(
        kind="DicomEventBridge",
        plural="dicomeventbridges",
        short_name="dbridge",
        spec=EventBridgeSpec,
        status=EventBridgeStatus,
        name_rules=_service_names("-event-bridge"),
        columns=(
            Column("Role", ".spec.role"),
            Column("Mailbox", ".spec.edgeMailbox"),
            Column("Endpoint", ".status.bridgeEndpoint", wide=True),
            _INGESTION,
        ),
        scaled="eventBridge",
    ),
)
