"""What became of the instances of a STOW-RS request."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from imaging_services.domain.errors import ImagingError, answer_for
from imaging_services.domain.ingest.conformance import Finding, findings
from imaging_services.domain.ingest.heading import Heading
from imaging_services.domain.ingest.ingest import Ingested

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Outcome:
    """What became of one instance: the stored one, or the error and, if they could be read, the SOP UIDs.

    ``findings`` is where it bends the Standard, ``coerced`` what was added to it, ``discarded`` what was left out.
    """

    ingested: Ingested | None = None
    error: BaseException | None = None
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    findings: Sequence[Finding] = ()
    coerced: Sequence[Finding] = ()
    discarded: Sequence[Finding] = ()

    def identify(self, sop_class_uid: str, sop_instance_uid: str) -> None:
        """Remember the UIDs of the data set."""
        self.sop_class_uid, self.sop_instance_uid = sop_class_uid, sop_instance_uid

    def inspect(self, heading: Heading, size: int) -> None:
        """Look for what bends the Standard."""
        self.findings = findings(heading, size)


def report(outcome: Outcome, error: Exception) -> None:
    """Keep the error for the response, and log it. What it was raised from is let go of: the instance's bytes."""
    outcome.error = error
    uid = outcome.sop_instance_uid
    if isinstance(error, ImagingError):
        reason = {
            "error": type(error).__name__,
            "reason": str(error),
            "failure_reason": f"{answer_for(error).stow:04X}H",
        }
        log.warning("instance not stored", sop_instance_uid=uid, **reason)
    else:
        log.error("instance not stored", sop_instance_uid=uid, exc_info=error)
    _forget_frames(error)


def _forget_frames(error: BaseException) -> None:
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None:
            left += [one.__cause__, one.__context__]
            one.__traceback__ = one.__cause__ = one.__context__ = None
