"""Services and Ingresses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from imaging_operator.builders.names import metadata, service_name
from imaging_operator.builders.types import Json, Owner
from imaging_operator.builders.workload import Workload, selector


@dataclass(frozen=True, slots=True)
class Publication:
    """How a Service is seen from outside."""

    type: str = "ClusterIP"
    node_port: int | None = None
    source_ranges: Sequence[str] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)


def service(
    owner: Owner,
    workload: Workload,
    *,
    port: int,
    port_name: str,
    name: str = "",
    publication: Publication | None = None,
) -> Json:
    """A Service of the workload's first port; ``name`` is the workload's unless given."""
    public = publication or Publication()
    target = next(each.port for each in workload.containers if each.port)
    entry: Json = {"name": port_name, "port": port, "targetPort": target.name, "protocol": "TCP"}
    if public.node_port and public.type != "ClusterIP":
        entry["nodePort"] = public.node_port
    spec: Json = {"type": public.type, "selector": selector(workload.name), "ports": [entry]}
    if public.source_ranges and public.type == "LoadBalancer":
        spec["loadBalancerSourceRanges"] = list(public.source_ranges)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(
            owner, service_name(owner, name or workload.name), workload.component, annotations=public.annotations
        ),
        "spec": spec,
    }


@dataclass(frozen=True, slots=True)
class IngressOptions:
    """A public host name."""

    host: str
    class_name: str = ""
    tls_secret: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Base URL of the host."""
        return f"{'https' if self.tls_secret else 'http'}://{self.host}"


def ingress(owner: Owner, name: str, component: str, options: IngressOptions, paths: Mapping[str, str]) -> Json:
    """An Ingress that leads each path prefix to the Service named, at its port ``http``."""
    backends = [
        {
            "path": path,
            "pathType": "Prefix",
            "backend": {"service": {"name": target, "port": {"name": "http"}}},
        }
        for path, target in sorted(paths.items())
    ]
    spec: Json = {"rules": [{"host": options.host, "http": {"paths": backends}}]}
    if options.class_name:
        spec["ingressClassName"] = options.class_name
    if options.tls_secret:
        spec["tls"] = [{"hosts": [options.host], "secretName": options.tls_secret}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata(owner, name, component, annotations=options.annotations),
        "spec": spec,
    }
