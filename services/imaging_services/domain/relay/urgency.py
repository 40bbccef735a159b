"""Which instances are urgent, so that they wait behind no others on their way."""

from collections import OrderedDict
from dataclasses import dataclass

from imaging_services.domain.dicom.command_set import PRIORITY
from imaging_services.domain.dicom.elements import SERIES_INSTANCE_UID, Header
from imaging_services.domain.dicom.items import items_json
from imaging_services.domain.dicom.values import Decoding, decoding_of, text_values
from imaging_services.domain.relay.messages import Call

MODALITY = 0x00080060
REQUESTED_PROCEDURE_PRIORITY = 0x00401003
REQUEST_ATTRIBUTES_SEQUENCE = 0x00400275
_HIGH = 0x0001  # C-STORE Priority (PS3.7 table 9.3-1)
_SERIES_REMEMBERED = 1024  # of one association


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

    def covers(self, call: Call, header: Header) -> bool:
        """The instance is urgent, as far as its command and the head of its data set say."""
        if call.origin.calling_ae_title in self.calling_ae_titles:
            return True
        if self.by_request and call.command.number(PRIORITY, 0) == _HIGH:
            return True
        if self.modalities and not self.modalities.isdisjoint(_codes(header.raw(MODALITY), decoding_of(header))):
            return True
        wanted = self.procedure_priorities
        return bool(wanted) and not wanted.isdisjoint(_procedure_priorities(header))


NOTHING_URGENT = Urgency()


class UrgentSeries:
    """The decisions of open associations: what was decided for the first instance of a series in an association holds
    for the others, so that none overtakes them."""

    def __init__(self, urgency: Urgency) -> None:
        self._urgency = urgency
        self._decided: dict[str, OrderedDict[str, bool]] = {}

    def is_urgent(self, call: Call, header: Header) -> bool:
        """Whether an instance is urgent."""
        if not self._urgency:
            return False
        series = header.uid(SERIES_INSTANCE_UID)
        decided = self._decided.setdefault(call.origin.association_id, OrderedDict())
        if series not in decided:
            decided[series] = self._urgency.covers(call, header)
            if len(decided) > _SERIES_REMEMBERED:
                decided.popitem(last=False)
        return decided[series]

    def forget(self, association_id: str) -> None:
        """The association has ended."""
        self._decided.pop(association_id, None)


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
