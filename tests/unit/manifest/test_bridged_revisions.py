"""A study is announced once at each site, though both make revisions and a bridge carries them."""

import json

import pytest

from imaging_services.adapters.memory.manifest import MemoryManifest
from imaging_services.apps.event_driven_ingestion.bridged import announcing_once
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.envelope import BRIDGE_ORIGIN, STUDY_REVISION, CloudEvent
from support.manifest_events import stored


def revision(study: str, extensions: dict[str, str]) -> CloudEvent:
    data = json.dumps({"revision": 0, "study": {"studyInstanceUID": study}}).encode()
    return CloudEvent(STUDY_REVISION, "elsewhere", "1", data, extensions=extensions)


@pytest.mark.parametrize(
    ("study", "extensions", "recorded"),
    [("1.2", {BRIDGE_ORIGIN: "north"}, 0), ("1.3", {BRIDGE_ORIGIN: "north"}, 1), ("1.2", {}, 1)],
    ids=["bridged, recorded here", "bridged, unknown here", "not bridged"],
)
async def test_only_the_other_sites_revision_of_an_own_study_is_left_out(
    study: str, extensions: dict[str, str], recorded: int
) -> None:
    manifest, taken = MemoryManifest("processor.test"), []
    await manifest.record([stored("1.2", "1.2.1", "1.2.1.1")])

    async def record(event: CloudEvent) -> None:
        taken.append(event)

    await announcing_once(manifest, record)(revision(study, extensions))
    assert len(taken) == recorded


async def test_a_bridged_revision_that_names_no_study_is_refused() -> None:
    manifest = MemoryManifest("processor.test")

    async def record(event: CloudEvent) -> None:
        raise AssertionError("must not be recorded")

    with pytest.raises(InvalidInput, match="names no study"):
        await announcing_once(manifest, record)(
            CloudEvent(STUDY_REVISION, "x", "1", b"[]", extensions={BRIDGE_ORIGIN: "n"})
        )
