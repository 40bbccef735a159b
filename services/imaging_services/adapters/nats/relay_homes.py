"""Which process at the far side keeps the association to the target that an association here needs again."""

from collections import OrderedDict

from imaging_services.domain.relay.messages import Call
from imaging_services.domain.relay.services import PRINT_MANAGEMENT
from imaging_services.domain.relay.subjects import RelaySubjects

_REMEMBERED = 4096


class Homes:
    """Any process serves a request; only print management goes on with the one that began."""

    def __init__(self, subjects: RelaySubjects) -> None:
        self._subjects = subjects
        self._workers: OrderedDict[str, str] = OrderedDict()

    def of(self, call: Call) -> str:
        """Where to send a request."""
        worker = self._workers.get(call.origin.association_id) if call.abstract_syntax in PRINT_MANAGEMENT else None
        return self._subjects.request_to(worker) if worker else self._subjects.request

    def learn(self, call: Call, worker: str | None) -> None:
        """This process has answered."""
        if worker and call.abstract_syntax in PRINT_MANAGEMENT:
            self._workers[call.origin.association_id] = worker
            self._workers.move_to_end(call.origin.association_id)
            if len(self._workers) > _REMEMBERED:
                self._workers.popitem(last=False)
