"""Which instances are urgent, so that they wait behind no others: on the relay, and as events in a backlog."""

from collections import OrderedDict
from dataclasses import dataclass

from imaging_services.domain.dicom.command_set import PRIORITY, CommandSet
from imaging_services.domain.dicom.elements import SERIES_INSTANCE_UID, Header
from imaging_services.domain.dicom.items import items_json
from imaging_services.domain.dicom.values import Decoding, decoding_of, text_values

MODALITY = 0x00080060
REQUESTED_PROCEDURE_PRIORITY = 0x00401003
REQUEST_ATTRIBUTES_SEQUENCE = 0x00400275
_HIGH = 0x0001  # C-STORE Priority (PS3.7 table 9.3-1)
_SERIES_REMEMBERED = 1024  # of one association or request
_ASSOCIATIONS_REMEMBERED = 1024  # the end of one over a relay is told to one of several processes


@dataclass(frozen=True, slots=True)
class Urgency:
    """What makes an instance urgent, each alone: its sender's AE title, its Modality, its Requested Procedure Priority
    (PS3.3 section C.4.11: STAT, HIGH, ...; within the Request Attributes Sequence too), and with ``by_request`` the
    Priority HIGH of its C-STORE."""

    calling_ae_titles: frozenset[str] = frozenset()
    modalities: frozenset[str] = frozenset()
    procedure_priorities: frozenset[str] = frozenset()
    by_request: bool = False

    def __bool__(self) -> bool:
        return bool(self.calling_ae_titles or self.modalities or self.procedure_priorities or self.by_request)

    def covers(self, header: Header, calling_ae_title: str = "", command: CommandSet | None = None) -> bool:
        """The instance is urgent, as far as its header has been read; ``command`` is that of its C-STORE."""
        if calling_ae_title in self.calling_ae_titles:
            return True
        if self.by_request and command is not None and command.elements.get(PRIORITY) == _HIGH:
            return True
        if self.modalities and not self.modalities.isdisjoint(_codes(header.raw(MODALITY), decoding_of(header))):
            return True
        wanted = self.procedure_priorities
        return bool(wanted) and not wanted.isdisjoint(_procedure_priorities(header))


NOTHING_URGENT = Urgency()


class UrgentSeries:
    """The decisions of one association or request: what was decided for the first instance of a series holds for the
    others, so that none overtakes them."""

    def __init__(self, urgency: Urgency, calling_ae_title: str = "") -> None:
        self._urgency, self._calling_ae_title = urgency, calling_ae_title
        self._decided: OrderedDict[str, bool] = OrderedDict()

    def is_urgent(self, header: Header, command: CommandSet | None = None) -> bool:
        """Whether an instance is urgent; ``command`` is that of its C-STORE."""
        if not self._urgency:
            return False
        series = header.uid(SERIES_INSTANCE_UID)
        if series not in self._decided:
            self._decided[series] = self._urgency.covers(header, self._calling_ae_title, command)
            if len(self._decided) > _SERIES_REMEMBERED:
                self._decided.popitem(last=False)
        return self._decided[series]


class UrgentAssociations:
    """The decisions of associations, by their ids."""

    def __init__(self, urgency: Urgency) -> None:
        self._urgency = urgency
        self._nothing = UrgentSeries(NOTHING_URGENT)
        self._open: OrderedDict[str, UrgentSeries] = OrderedDict()

    def of(self, association_id: str, calling_ae_title: str) -> UrgentSeries:
        """Those of one association."""
        if not self._urgency:
            return self._nothing
        if association_id not in self._open:
            self._open[association_id] = UrgentSeries(self._urgency, calling_ae_title)
            if len(self._open) > _ASSOCIATIONS_REMEMBERED:
                self._open.popitem(last=False)
        self._open.move_to_end(association_id)
        return self._open[association_id]

    def forget(self, association_id: str) -> None:
        """The association has ended."""
        self._open.pop(association_id, None)


def codes(text: str) -> frozenset[str]:
    """Code strings separated by commas, in capitals as the Standard has them (PS3.5 table 6.2-1)."""
    return frozenset(code.strip().upper() for code in text.split(",") if code.strip())


def _procedure_priorities(header: Header) -> set[str]:
    decoding = decoding_of(header)
    found = _codes(header.raw(REQUESTED_PROCEDURE_PRIORITY), decoding)
    sequence = header.raw(REQUEST_ATTRIBUTES_SEQUENCE)
    for item in items_json(sequence, decoding) if sequence else []:
        for element in item:
            if (element["group"], element["element"]) == ("0040", "1003"):
                found.update(value.upper() for value in element.get("values") or [element["value"] or ""])
    return found


def _codes(raw: bytes | None, decoding: Decoding) -> set[str]:
    return {value.upper() for value in text_values("CS", raw, decoding.charset)} if raw else set()
