"""The names of a relay: subjects, streams and bucket of one listening channel under one root."""

import re
from dataclasses import dataclass

from imaging_services.domain.errors import SettingsError
from imaging_services.domain.nats_names import checked_root, token

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


def _token(name: str) -> str:
    return name if name == "*" else _UNSAFE.sub("_", name)


def other_channel(channel: str) -> str:
    """The letter of the other end. Raises ``SettingsError`` unless the own letter is A or B."""
    if channel not in ("A", "B"):
        raise SettingsError(f"channel {channel!r} is neither A nor B: set DIMSE_NATS_SUBJECT_CHANNEL to one of them")
    return "B" if channel == "A" else "A"


@dataclass(frozen=True, slots=True)
class RelaySubjects:
    """Names of what the end that listens on ``channel`` receives."""

    root: str
    channel: str

    def __post_init__(self) -> None:
        checked_root(self.root)
        other_channel(self.channel)

    def _subject(self, *tokens: str) -> str:
        return ".".join((self.root, self.channel, *tokens))

    def _name(self, suffix: str) -> str:
        # A stream or bucket name may hold no dot; roots that differ must not share one.
        return f"{token(self.root)}-{self.channel}-{suffix}"

    def store(self, association_id: str, object_name: str | None = None) -> str:
        """Stores on their way, kept by a stream. Association and object are part of the subject, so that the stream
        can be asked of which associations stores wait, and which objects it names, without reading its messages."""
        association = _token(association_id)
        return self._subject("store", association, object_name) if object_name else self._subject("store", association)

    def end(self, association_id: str) -> str:
        """The end of an association, kept by the same stream behind its stores."""
        return self._subject("end", _token(association_id))

    @property
    def queued(self) -> list[str]:
        """All that the work-queue stream keeps."""
        return [self.store("*"), self.store("*", "*"), self.end("*")]

    def urgent(self, association_id: str, object_name: str | None = None) -> str:
        """Stores that wait behind no others, kept by a stream of their own; as ``store``."""
        association = _token(association_id)
        return (
            self._subject("urgent", association, object_name) if object_name else self._subject("urgent", association)
        )

    @property
    def queued_urgent(self) -> list[str]:
        """All that the stream of urgent stores keeps."""
        return [self.urgent("*"), self.urgent("*", "*")]

    def dead_letters(self, object_name: str | None = None) -> str:
        """Stores given up on, kept by a stream of their own."""
        return self._subject("dead-letters", object_name) if object_name else self._subject("dead-letters")

    @property
    def kept(self) -> list[str]:
        """All subjects that streams keep. Where JetStream domains are joined by leaf connections, each keeps its own:
        these must not cross (``deny_imports`` and ``deny_exports``), or every domain would keep the others' too."""
        dead_letters = [self.dead_letters(), self.dead_letters("*")]
        return [*self.queued, *self.queued_urgent, *dead_letters, f"$O.{self.bucket}.>"]

    def domain(self, name: str) -> str:
        """A JetStream domain says that it keeps stores for this end; its last word is kept where this end is."""
        return self._subject("domain", name)

    @property
    def confirm(self) -> str:
        """Stores that wait for the far side's status. Not the subject of the stream, which would answer itself."""
        return self._subject("confirm")

    @property
    def request(self) -> str:
        """Every other DIMSE request."""
        return self._subject("request")

    def request_to(self, worker: str) -> str:
        """The same to one process, which keeps something for the association that asks."""
        return self._subject("request", worker)

    @property
    def negotiate(self) -> str:
        """Which presentation contexts the far side's target accepts."""
        return self._subject("negotiate")

    @property
    def association(self) -> str:
        """Associations opened and still open at the near side, and closed where no stores wait in a stream."""
        return self._subject("association")

    def control(self, request_id: str) -> str:
        """From the near side to the far side about one request: cancel, and how much has been received."""
        return self._subject("control", request_id)

    def event(self, association_id: str, *, large: bool = False) -> str:
        """Event reports over one association at this end, answered by the process that has it. The ``large`` ones lie
        in the bucket; who knows of none does not hear them."""
        association = _token(association_id)
        return self._subject("event", association, "large") if large else self._subject("event", association)

    @property
    def stream(self) -> str:
        """Work-queue stream of ``store`` and ``end``."""
        return self._name("store")

    @property
    def urgent_stream(self) -> str:
        """Work-queue stream of ``urgent``."""
        return self._name("urgent")

    @property
    def domains_stream(self) -> str:
        """Stream of ``domain``."""
        return self._name("domains")

    @property
    def dead_letter_stream(self) -> str:
        """Stream of ``dead_letters``."""
        return self._name("dead-letters")

    @property
    def bucket(self) -> str:
        """Object bucket of the instances too large for a message."""
        return self._name("instances")

    @property
    def worker(self) -> str:
        """Name of the durable consumer and of the queue groups: each message goes to one process."""
        return "relay"
