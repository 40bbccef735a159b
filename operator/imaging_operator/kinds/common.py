"""What a kind is: the references of its spec, the objects it wants, and the status fields of its own. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from imaging_operator.specs.common import Spec

Json = dict[str, Any]
S = TypeVar("S", bound=Spec)


STREAM = "JetStream stream "
"""What an entry of ``Kind.durable`` begins with when it names a stream: ``retention: Delete`` removes those."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Another object, in the same namespace, that a resource needs before anything is created."""

    key: str
    """How ``build`` finds it in ``Wanted.found``: ``bucket_secret``, ``edi``, ``web`` ..."""
    kind: str
    """``Secret``, ``ConfigMap``, or one of the seven kinds."""
    name: str
    """Empty when it is found by ``matches``."""
    missing: str
    """The message of ``MissingReference`` when it is absent."""
    matches: Callable[[Json], bool] | None = None
    """For one of the seven kinds: which object it is, where the spec gives no name; the oldest match is taken."""
    optional: bool = False
    """Absent is fine, and then not in ``found``; it is watched all the same."""
    named_by: Callable[[Mapping[str, Json]], str] | None = None
    """The name follows from the references before this one, by key; empty: there is no such object, none is missing."""


@dataclass(frozen=True, slots=True)
class Features:
    """What the cluster offers now."""

    knative_serving: bool = False
    knative_eventing: bool = False
    keda: bool = False


@dataclass(frozen=True, slots=True)
class Wanted(Generic[S]):
    """One resource with all that ``build`` may look at."""

    kind: str
    name: str
    namespace: str
    uid: str
    spec: S
    found: Mapping[str, Json] = field(default_factory=dict)
    """The references that exist, by key, as the API server returns them."""
    features: Features = Features()


@dataclass(frozen=True, slots=True)
class Kind(Generic[S]):
    """A row of ``KINDS``: everything that differs between the seven kinds."""

    name: str
    plural: str
    spec: type[S]
    references: Callable[[str, S], Sequence[Reference]]
    """(name of the resource, spec) → what must exist first."""
    build: Callable[[Wanted[S], Any], Sequence[Json]]
    """(resource, operator settings) → the objects it owns, without owner reference; deterministic. May raise
    ``Wrong``, or ``MissingReference`` for what is not ready in a reference."""
    status: Callable[[Wanted[S], Any, Sequence[Json]], Json]
    """(resource, operator settings, its objects as observed) → status fields of this kind (``brokerEndpoint`` ...)."""
    durable: Callable[[Wanted[S], Any], Sequence[str]]
    """What outlives the resource, in words for an Event (``JetStream stream imaging-events``); see ``retention``."""
    makes_streams_of_others: bool = False
    """Its pods create streams of a resource it refers to, and create them again after they were removed."""
