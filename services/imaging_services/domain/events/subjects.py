"""Names of streams, subjects and consumers on NATS, in one place.

::

    <stream>-events          <root>.<stream>.events.<type>          the log of an EDI
                             <root>.<stream>.redrive.<consumer>     dead letters put back, for one consumer
                             <root>.<stream>.urgent.events.<type>   events that overtake those
                             <root>.<stream>.urgent.redrive.<consumer>
    <stream>-dead-letters    <root>.<stream>.dead-letters.<consumer>
    (core NATS)              <root>.<stream>.ingress                events for the event processor, request/reply
                         <root>.<stream>.queued                 something waits in the outbox to be published
"""

from dataclasses import dataclass

from imaging_services.domain.errors import SettingsError
from imaging_services.domain.nats_names import checked_root, is_subject, token


def urgent_durable(consumer: str) -> str:
    """The durable that takes a consumer's urgent events; no ``token`` of another name has a ``+``."""
    return f"{token(consumer)}+urgent"


@dataclass(frozen=True, slots=True)
class EventSubjects:
    """Subjects and streams of one EDI's events: ``root`` is the first part of all, ``stream`` the EDI's name."""

    root: str
    stream: str

    @property
    def _base(self) -> str:
        return f"{checked_root(self.root)}.{token(self.stream)}"

    @property
    def event_stream(self) -> str:
        """The stream that holds the log."""
        return f"{token(self.stream)}-events"

    @property
    def dead_letter_stream(self) -> str:
        """The stream that holds dead letters."""
        return f"{token(self.stream)}-dead-letters"

    @property
    def ingress(self) -> str:
        """Where producers hand in events."""
        return f"{self._base}.ingress"

    @property
    def queued(self) -> str:
        """Where services that record by themselves say that they have queued events."""
        return f"{self._base}.queued"

    @property
    def all_events(self) -> str:
        """Events of every type."""
        return f"{self._base}.events.*"

    @property
    def all_redrives(self) -> str:
        """Redriven dead letters of every consumer."""
        return f"{self._base}.redrive.*"

    @property
    def all_urgent(self) -> str:
        """Urgent events of every type, and urgent dead letters put back."""
        return f"{self._base}.urgent.>"

    @property
    def all_dead_letters(self) -> str:
        """Dead letters of every consumer."""
        return f"{self._base}.dead-letters.*"

    def event(self, event_type: str) -> str:
        """Events of one type."""
        return f"{self._base}.events.{token(event_type)}"

    def redrive(self, consumer: str) -> str:
        """Dead letters put back for one consumer."""
        return f"{self._base}.redrive.{token(consumer)}"

    def urgent_event(self, event_type: str) -> str:
        """Urgent events of one type."""
        return f"{self._base}.urgent.events.{token(event_type)}"

    def urgent_redrive(self, consumer: str) -> str:
        """Urgent dead letters put back for one consumer."""
        return f"{self._base}.urgent.redrive.{token(consumer)}"

    def dead_letters(self, consumer: str) -> str:
        """Dead letters of one consumer."""
        return f"{self._base}.dead-letters.{token(consumer)}"


@dataclass(frozen=True, slots=True)
class MailboxSubjects:
    """Subjects of the event bridge: a work-queue stream named as the root, a mailbox for the hub and each edge."""

    root: str

    @property
    def stream(self) -> str:
        """The stream that holds every mailbox."""
        return token(checked_root(self.root))

    @property
    def dead_letter_stream(self) -> str:
        """The stream that holds what a receiving bridge gave up on."""
        return f"{self.stream}-dead-letters"

    @property
    def hub(self) -> str:
        """The hub's mailbox."""
        return f"{checked_root(self.root)}.wheel.hub.mailbox"

    def edge(self, mailbox: str) -> str:
        """An edge's mailbox. Raises ``SettingsError`` for an id that cannot be part of a subject."""
        if not is_subject(mailbox) or mailbox == "hub":
            raise SettingsError(
                f"mailbox id {mailbox!r} is not usable: no spaces, '*' and '>', dots only between words, not 'hub'"
            )
        return f"{checked_root(self.root)}.wheel.{mailbox}.mailbox"

    @property
    def all_dead_letters(self) -> str:
        """Dead letters of every mailbox."""
        return f"{checked_root(self.root)}.dead-letters.*"

    def dead_letters(self, mailbox: str) -> str:
        """Dead letters of one mailbox (``hub`` or an edge's id)."""
        return f"{checked_root(self.root)}.dead-letters.{token(mailbox)}"
