"""Errors of a reconciliation. Whether it is tried again is part of the type.

::

    ReconcileError
    ├── NotYet                    something outside this resource is missing: tried again, and at once when it appears
    │   ├── MissingReference      a Secret, ConfigMap or resource that the spec names is absent
    │   ├── Conflict              somebody else changed or still holds an object: the next pass sees the new state
    │   ├── Forbidden             the operator lacks a right; an API server that just started says so too
    │   ├── InternalError         a bug of the operator
    │   └── ApiUnavailable        the API server cannot be reached, or is overloaded
    └── Wrong                     only a change of the resource or of the operator's settings can help
"""

from typing import ClassVar


class ReconcileError(Exception):
    """Base; the message is what ``status.message`` says."""

    reason: ClassVar[str] = "Error"
    """CamelCase word for conditions and Kubernetes Events."""


class NotYet(ReconcileError):
    """The same pass may succeed later."""

    reason = "NotYet"


class MissingReference(NotYet):
    """What the spec names does not exist."""

    reason = "MissingReference"


class Conflict(NotYet):
    """Another writer was faster, or an object of a former resource is still being removed."""

    reason = "Conflict"


class Forbidden(NotYet):
    """The API server refused a request of the operator; the message says which right is missing."""

    reason = "Forbidden"


class InternalError(NotYet):
    """The operator failed in a way that nobody thought of; only its log says how."""

    reason = "InternalError"


class ApiUnavailable(NotYet):
    """The API server did not answer, or asked to come back later."""

    reason = "ApiUnavailable"


class Wrong(ReconcileError):
    """The same pass will fail again until somebody changes something; the message says what."""

    reason = "Wrong"
