"""The metrics of several processes as those of one target.

Each series gets a label ``worker``. Nothing is added up: a gauge such as an age has no sum, and a counter of a worker
that was started again begins at 0, which Prometheus understands in a series of its own but not in a sum. That, and that
no metric has to say how it is merged, is why this is not prometheus_client's multiprocess mode.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

_LABEL = "worker"


class _Merged:
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> list[Metric]:
        return self._families


def merged(exposed: Mapping[str, bytes]) -> bytes:
    """One page of what several processes expose, in the text format; the keys become the label's values."""
    families: dict[str, Metric] = {}
    for worker, text in exposed.items():
        for family in text_string_to_metric_families(text.decode()):
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                labels: dict[str, Any] = {**sample.labels, _LABEL: worker}
                whole.add_sample(sample.name, labels, sample.value)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Merged(families.values()))
    return generate_latest(registry)
