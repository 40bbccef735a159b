"""The file of known AEs: what its lines say, what is wrong in it, and that a change is seen."""

import pytest

from imaging_services.apps.dimse_ingestion.known_aes import KNOWN_AES_FILE, KnownAe, KnownAes, parse_known_aes
from imaging_services.domain.errors import NotFound, SettingsError


def test_lines_say_the_way_to_an_ae():
    text = """
    # archives
    PACS:pacs.hospital.example:11112
    SECURE PACS:10.1.2.3:2762,tls
    SIX:[fd00::17]:104
    MODALITY:proxy
    """
    assert parse_known_aes(text) == {
        "PACS": KnownAe("PACS", "pacs.hospital.example", 11112),
        "SECURE PACS": KnownAe("SECURE PACS", "10.1.2.3", 2762, tls=True),
        "SIX": KnownAe("SIX", "fd00::17", 104),
        "MODALITY": KnownAe("MODALITY"),
    }
    assert parse_known_aes(text)["MODALITY"].behind_proxy


@pytest.mark.parametrize(
    "line",
    ["PACS", "PACS:host", "PACS:host:0", "PACS:host:70000", "PACS:host:104,ssl", "A" * 17 + ":host:104", ":host:104"],
)
def test_a_line_that_says_none_is_named(line):
    with pytest.raises(SettingsError, match="KNOWN_AES line 2"):
        parse_known_aes(f"# first\n{line}\n")


def test_a_title_that_comes_twice_is_named():
    with pytest.raises(SettingsError, match="PACS comes twice"):
        parse_known_aes("PACS:one:104\nPACS:two:104")


def test_a_change_is_seen_and_a_wrong_one_changes_nothing(tmp_path):
    known = KnownAes(tmp_path)
    with pytest.raises(NotFound, match="PACS"):
        known.get("PACS")
    (tmp_path / KNOWN_AES_FILE).write_text("PACS:one:104")
    assert known.get("PACS").host == "one"
    (tmp_path / KNOWN_AES_FILE).write_text("PACS:two:1040\nOTHER:three:104")
    assert known.get("PACS").host == "two"
    (tmp_path / KNOWN_AES_FILE).write_text("PACS")
    assert known.get("PACS").host == "two"
    with pytest.raises(SettingsError):
        KnownAes(tmp_path)


def test_without_a_directory_nobody_is_known():
    with pytest.raises(NotFound):
        KnownAes(None).get("PACS")
