"""Names, labels, annotations and cluster addresses of what the operator makes."""

import re
from collections.abc import Mapping

from imaging_operator.builders.types import ClusterSettings, Json, Owner
from imaging_operator.errors import Wrong

GROUP = "imaging-ingestion.alvearie.org"
MANAGED_BY = "imaging-ingestion-operator"
APPLICATION = "imaging-ingestion"
KIND_LABEL = f"{GROUP}/kind"
OWNER_LABEL = f"{GROUP}/owner"
CREATE_ONLY = f"{GROUP}/create-only"
CHECKSUM = f"{GROUP}/config-checksum"

_SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST = 63


def labels(owner: Owner, component: str) -> dict[str, str]:
    """Labels of every object that a resource owns, and of its pods."""
    return {
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/instance": owner.name,
        "app.kubernetes.io/managed-by": MANAGED_BY,
        "app.kubernetes.io/name": APPLICATION,
        KIND_LABEL: owner.kind,
        OWNER_LABEL: owner.name,
    }


def metadata(
    owner: Owner,
    name: str,
    component: str,
    *,
    extra_labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Json:
    """Metadata of an owned object."""
    document: Json = {
        "name": name,
        "namespace": owner.namespace,
        "labels": {**labels(owner, component), **(extra_labels or {})},
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return document


def label_name(owner: Owner, name: str) -> str:
    """The name itself, of a workload whose pods are found by it as a label. Raises ``Wrong`` for one that is too long
    for a label; a resource's own name may be longer."""
    if len(name) > _LONGEST:
        raise Wrong(
            f"{name} would have {len(name)} characters, but Kubernetes allows {_LONGEST} there: "
            f"give the {owner.kind} a name of at most {_LONGEST - len(name) + len(owner.name)} characters"
        )
    return name


def service_name(owner: Owner, name: str) -> str:
    """The name itself, of a Service. Raises ``Wrong`` for one that Kubernetes would refuse.

    Services want a DNS label (RFC 1035) of 63 characters; a resource's own name may also hold dots and begin with a
    digit.
    """
    if not _SERVICE.fullmatch(label_name(owner, name)):
        raise Wrong(
            f"{name} cannot be the name of a Service: give the {owner.kind} a name of lower-case letters, digits and "
            "'-' that begins with a letter"
        )
    return name


def host(name: str, namespace: str, settings: ClusterSettings) -> str:
    """Name of a Service inside the cluster."""
    return f"{name}.{namespace}.svc.{settings.CLUSTER_DOMAIN}"


def url(name: str, namespace: str, settings: ClusterSettings) -> str:
    """Base URL of an HTTP Service on port 80, also of a Knative Service inside the cluster."""
    return f"http://{host(name, namespace, settings)}"
