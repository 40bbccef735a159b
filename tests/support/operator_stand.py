"""A reconciler of one small kind, against an API server in memory."""

from collections.abc import Sequence
from typing import Any

from imaging_operator.builders.names import CREATE_ONLY, KIND_LABEL, MANAGED_BY, OWNER_LABEL
from imaging_operator.discovery import Discovery
from imaging_operator.errors import NotYet, Wrong
from imaging_operator.events import EventRecorder
from imaging_operator.kinds.common import STREAM, Kind, Reference, Wanted
from imaging_operator.reconcile import Reconciler, customs_of
from imaging_operator.references import ReferenceIndex
from imaging_operator.resources import Key
from imaging_operator.settings import OperatorSettings
from imaging_operator.specs.common import Spec
from support.kubernetes_api import KubernetesApi

Json = dict[str, Any]
KEY = Key("Fake", "ns", "one")


class FakeSpec(Spec):
    """As small as a spec can be."""

    text: str = "a"
    secret: str = ""
    uses: str = ""
    extra: bool = False
    without_lists: bool = False
    scaled_by: str = ""
    knative: bool = False
    retention: str = "Retain"


def references(name: str, spec: FakeSpec) -> Sequence[Reference]:
    used = [Reference("used", "Fake", spec.uses, "Missing Fake")] if spec.uses else []
    return [*used, Reference("secret", "Secret", spec.secret, "Missing Secret")] if spec.secret else used


_VERSIONS = {
    "Deployment": "apps/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
    "ScaledObject": "keda.sh/v1alpha1",
}


def labelled(wanted: Wanted[FakeSpec], kind: str, name: str, **more: Any) -> Json:
    labels = {"app.kubernetes.io/managed-by": MANAGED_BY, KIND_LABEL: wanted.kind, OWNER_LABEL: wanted.name}
    version = _VERSIONS.get(kind, "v1")
    metadata = {"name": name, "namespace": wanted.namespace, "labels": labels}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **more}


def build(wanted: Wanted[FakeSpec], settings: Any) -> Sequence[Json]:
    if wanted.spec.text == "refused":
        raise Wrong("spec.text is refused: choose another")
    if wanted.spec.text == "bug":
        raise KeyError("do-not-show")
    if wanted.spec.knative:
        return [labelled(wanted, "Service", "one") | {"apiVersion": "serving.knative.dev/v1"}]
    lists = labelled(wanted, "ConfigMap", "one-lists", data={"list": "default"})
    lists["metadata"]["annotations"] = {CREATE_ONLY: "true"}
    found = [labelled(wanted, "Deployment", "one", spec={"text": wanted.spec.text, "replicas": 1})]
    found += [] if wanted.spec.without_lists else [lists]
    found += [labelled(wanted, "ConfigMap", "one-extra")] if wanted.spec.extra else []
    found += [labelled(wanted, "Service", "one", spec={})] if wanted.spec.text == "served" else []
    return [*found, labelled(wanted, wanted.spec.scaled_by, "one")] if wanted.spec.scaled_by else found


FAKE: Kind[FakeSpec] = Kind(
    name="Fake",
    plural="fakes",
    spec=FakeSpec,
    references=references,
    build=build,
    status=lambda wanted, settings, observed: {"endpoint": f"http://{wanted.spec.text}"},
    durable=lambda wanted, settings: [f"{STREAM}{wanted.name}-log"],
    makes_streams_of_others=True,
)


class Remover:
    """Stands for NATS."""

    def __init__(self) -> None:
        self.error: NotYet | None = None
        self.asked: list[str] = []

    async def __call__(self, wanted: Wanted[Any]) -> list[str]:
        self.asked.append(wanted.name)
        if self.error:
            raise self.error
        return [f"{STREAM}{wanted.name}-log"]


class Stand:
    """A reconciler and all around it."""

    def __init__(self) -> None:
        self.api = KubernetesApi()
        self.index = ReferenceIndex()
        self.remover = Remover()
        self.settings = OperatorSettings(STREAM_REMOVAL_SECONDS=10_000_000_000)
        self.restart()

    def restart(self) -> None:
        """A new process: nothing is remembered."""
        cluster, kinds = self.api.cluster(), {"Fake": FAKE}
        self.discovery = Discovery(cluster, customs_of(kinds))
        self.reconciler = Reconciler(
            cluster,
            self.discovery,
            self.settings,
            kinds,
            self.index,
            EventRecorder(cluster, "test"),
            self.remover,
        )

    async def serve(self, *collections: tuple[str, str]) -> None:
        """The cluster begins to serve (root, plural)."""
        self.api.served |= set(collections)
        await self.discovery.look()

    def resource(self, name: str = KEY.name, **spec: Any) -> Json:
        """Store the resource."""
        return self.api.put(
            "fakes",
            {
                "apiVersion": "imaging-ingestion.alvearie.org/v1alpha1",
                "kind": "Fake",
                "metadata": {"name": name, "namespace": "ns"},
                "spec": spec,
            },
        )

    async def run(self) -> bool:
        """One pass; its requests are in ``api.requests``."""
        self.api.requests.clear()
        return await self.reconciler.reconcile(KEY)

    @property
    def status(self) -> Json:
        """The resource's status."""
        resource = self.api.get("fakes", "one")
        assert resource is not None
        return dict(resource["status"])

    def change(self, **spec: Any) -> None:
        """Somebody edits the resource."""
        resource = self.api.objects["fakes", "ns", "one"]
        resource["spec"] = {**resource["spec"], **spec}
        resource["metadata"]["generation"] += 1
