"""Choosing presentation contexts, and the lists of what is accepted."""

from pathlib import Path

import pytest

from imaging_services.adapters.dimse.capability_lists import (
    DEFAULT_SOP_CLASSES,
    DEFAULT_TRANSFER_SYNTAXES,
    load_uid_lists,
    parse_uid_list,
)
from imaging_services.adapters.dimse.contexts import Capabilities, choose_contexts, load_capabilities, propose
from imaging_services.domain.dicom.dimse import VERIFICATION, ProposedContext
from imaging_services.domain.errors import InvalidInput, SettingsError
from support.dimse import CT, EXPLICIT, IMPLICIT, JPEG, MR, STUDY_ROOT_FIND

CAPABILITIES = Capabilities(frozenset({CT}), (EXPLICIT, IMPLICIT, JPEG), query_classes=frozenset({STUDY_ROOT_FIND}))
PRIVATE = "1.3.12.2.1107.5.9.1"


def chosen(abstract: str, syntaxes: tuple[str, ...], capabilities: Capabilities = CAPABILITIES) -> str | int:
    """The accepted transfer syntax, or the result of the refusal."""
    negotiated = choose_contexts([ProposedContext(1, abstract, syntaxes)], capabilities)
    return negotiated.transfer_syntaxes.get(1) or negotiated.refusals[1]


def test_most_preferred_syntax_wins() -> None:
    assert chosen(CT, (JPEG, IMPLICIT, EXPLICIT)) == EXPLICIT
    assert chosen(CT, (JPEG,)) == JPEG


def test_refusals_say_why() -> None:
    assert chosen(CT, ("1.2.840.10008.1.2.4.100",)) == 4
    assert chosen(MR, (EXPLICIT,)) == 3


def test_verification_and_queries_take_uncompressed_syntaxes_only() -> None:
    assert chosen(VERIFICATION, (IMPLICIT,)) == IMPLICIT
    assert chosen(VERIFICATION, (JPEG,)) == 4
    assert chosen(STUDY_ROOT_FIND, (IMPLICIT, EXPLICIT)) == EXPLICIT
    assert chosen(STUDY_ROOT_FIND, (JPEG,)) == 4


def test_unknown_storage_classes_need_the_setting() -> None:
    open_minded = Capabilities(frozenset(), (EXPLICIT,), accept_unknown=True)
    assert chosen(PRIVATE, (EXPLICIT,)) == 3
    assert chosen(PRIVATE, (EXPLICIT,), open_minded) == EXPLICIT
    assert chosen("1.2.840.10008.5.1.4.1.1.999", (EXPLICIT,), open_minded) == EXPLICIT
    assert chosen(STUDY_ROOT_FIND, (EXPLICIT,), open_minded) == 3


def test_default_lists_are_those_of_the_specification() -> None:
    assert len(set(DEFAULT_SOP_CLASSES)) == len(DEFAULT_SOP_CLASSES) == 158
    assert len(set(DEFAULT_TRANSFER_SYNTAXES)) == 11
    assert {CT, "1.2.840.10008.5.1.4.1.1.481.22", "1.2.840.10008.5.1.4.34.10"} <= set(DEFAULT_SOP_CLASSES)
    assert not any(uid.startswith("1.2.840.10008.5.1.4.1.2.") for uid in DEFAULT_SOP_CLASSES)


def test_lists_ignore_comments_and_lines_without_two_parts() -> None:
    text = f"# CTImageStorage:1.2.3\n\nCT:{CT}\n  MR : {MR} \nno uid\na:b:1.2\nBad:1.x\nAgain:{CT}\n #x:1.2.4\n"
    assert parse_uid_list(text) == (CT, MR)


def test_a_missing_file_replaces_both_lists(tmp_path: Path) -> None:
    (tmp_path / "IMAGE_CUIDS").write_text(f"CT:{CT}\n")
    assert load_uid_lists(tmp_path) == (DEFAULT_SOP_CLASSES, DEFAULT_TRANSFER_SYNTAXES)
    (tmp_path / "IMAGE_TSUIDS").write_text(f"Implicit:{IMPLICIT}\nJPEG:{JPEG}\nExplicit:{EXPLICIT}\n")
    assert load_uid_lists(tmp_path) == ((CT,), (IMPLICIT, JPEG, EXPLICIT))
    assert load_capabilities(tmp_path).transfer_syntaxes == (EXPLICIT, IMPLICIT, JPEG)


def test_a_list_without_uids_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "IMAGE_CUIDS").write_text("nothing\n")
    (tmp_path / "IMAGE_TSUIDS").write_text(f"Implicit:{IMPLICIT}\n")
    with pytest.raises(SettingsError, match="IMAGE_CUIDS"):
        load_uid_lists(tmp_path)


def test_at_most_128_contexts_are_proposed() -> None:
    assert [c.context_id for c in propose([(CT, (EXPLICIT,))] * 128)] == list(range(1, 257, 2))
    with pytest.raises(InvalidInput):
        propose([(CT, (EXPLICIT,))] * 129)
