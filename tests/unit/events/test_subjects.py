"""Names on NATS."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging_services.domain.errors import SettingsError
from imaging_services.domain.events.subjects import EventSubjects, MailboxSubjects
from imaging_services.domain.nats_names import token


@given(st.text(min_size=1, max_size=200))
def test_any_name_gives_a_token(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", token(name))


@pytest.mark.parametrize("name", ["north-binding", "DicomAvailableEvent", "x" * 64])
def test_a_usable_name_stays(name: str) -> None:
    assert token(name) == name


def test_different_names_stay_different() -> None:
    names = ["a.b", "a-b", "a b", "a*b", "a>b", "x" * 65, "x" * 66, "ä", "ö"]
    assert len(set(map(token, names))) == len(names)


def test_the_subjects_of_an_edi() -> None:
    subjects = EventSubjects("imaging", "main")
    assert subjects.event_stream == "main-events"
    assert subjects.dead_letter_stream == "main-dead-letters"
    assert subjects.event("ImageStoredEvent") == "imaging.main.events.ImageStoredEvent"
    assert subjects.redrive("fhir") == "imaging.main.redrive.fhir"
    assert subjects.dead_letters("fhir") == "imaging.main.dead-letters.fhir"
    assert subjects.ingress == "imaging.main.ingress"


def test_the_subjects_of_a_bridge() -> None:
    mailboxes = MailboxSubjects("events")
    assert (mailboxes.stream, mailboxes.hub) == ("events", "events.wheel.hub.mailbox")
    assert mailboxes.edge("site-7") == "events.wheel.site-7.mailbox"
    assert mailboxes.edge("north.site/7") == "events.wheel.north.site/7.mailbox"
    assert mailboxes.dead_letters("north.site/7").startswith("events.dead-letters.north-site-7-")


def test_a_root_that_nats_takes_is_taken() -> None:
    subjects = MailboxSubjects("region/north.imaging")
    assert subjects.hub == "region/north.imaging.wheel.hub.mailbox"
    assert subjects.stream.startswith("region-north-imaging-")


@pytest.mark.parametrize("root", ["", "a..b", ".a", "a b", "a.*", "a.>", "$JS"])
def test_an_unusable_root_is_named(root: str) -> None:
    with pytest.raises(SettingsError, match="subject root"):
        _ = EventSubjects(root, "main").ingress


@pytest.mark.parametrize("mailbox", ["", "a..b", "a b", "*", "hub"])
def test_an_unusable_mailbox_is_named(mailbox: str) -> None:
    with pytest.raises(SettingsError, match="mailbox id"):
        MailboxSubjects("events").edge(mailbox)
