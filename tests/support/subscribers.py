"""Subscribers of a whole installation, and what they have been told by its end."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from support.fhir_server import FhirServer
from support.webhook import Webhook

Identity = tuple[str, str, str]


@dataclass(frozen=True)
class Subscribers:
    """One of each kind: an instance binding, a study binding by webhook and one to a FHIR server."""

    instances: Webhook
    studies: Webhook
    fhir: FhirServer

    @property
    def options(self) -> list[str]:
        """Of ``imaging up``."""
        fhir = self.fhir.url.replace("http", "fhir+http", 1)
        return [
            *("--instance-binding", self.instances.url),
            *("--study-binding", self.studies.url),
            *("--study-binding", fhir),
        ]

    def announced(self) -> dict[Identity, set[str]]:
        """The ids of the events that told of each instance; one that comes again has the same."""
        found: dict[Identity, set[str]] = defaultdict(set)
        for event in self.instances.events:
            _, study, _, series, _, sop = str(event["data"]["endpoint"]).rsplit("/", 5)
            found[study, series, sop].add(event["id"])
        return dict(found)

    def revised(self) -> set[Identity]:
        """The instances of each study by its last revision."""
        last = {}
        for event in self.studies.events:
            data = event["data"]
            before = last.setdefault(data["study"]["studyInstanceUID"], data)
            if data["revision"] > before["revision"]:
                last[data["study"]["studyInstanceUID"]] = data
        return {
            (study, series["seriesInstanceUID"], one["sopInstanceUID"])
            for study, data in last.items()
            for series in data["study"]["series"]
            for one in series["instances"]
        }

    def times_added(self) -> Counter[Identity]:
        """In how many revisions each instance is an addition; a revision that is delivered again counts once."""
        revisions = {(event["source"], event["id"]): event["data"] for event in self.studies.events}
        return Counter(
            (data["study"]["studyInstanceUID"], *name.split("/"))
            for data in revisions.values()
            for name in data["changeSet"]["additions"]
        )

    def imaging_studies(self) -> set[Identity]:
        """The instances of every FHIR resource."""
        return {
            (item["value"].removeprefix("urn:oid:"), series["uid"], one["uid"])
            for resource in list(self.fhir.studies.values())
            for item in resource["identifier"]
            if item.get("system") == "urn:dicom:uid"
            for series in resource["series"]
            for one in series["instance"]
        }


@contextmanager
def subscribed() -> Iterator[Subscribers]:
    """Three of them."""
    with ExitStack() as stack:
        yield Subscribers(
            stack.enter_context(Webhook()), stack.enter_context(Webhook()), stack.enter_context(FhirServer())
        )
