"""SELECTOR: which providers' events a binding takes."""

import pytest

from imaging_services.domain.errors import SettingsError
from imaging_services.domain.events.selector import Selector


@pytest.mark.parametrize(
    ("selector", "provider", "matches"),
    [
        ("", "anything", True),
        (" , ", "anything", True),
        ("north", "north", True),
        ("north", "north-2", False),
        ("north", "xnorth", False),
        ("north.*", "north-2", True),
        ("north, south", "south", True),
        ("north,south", "west", False),
        ("site[0-9]{1,2}", "site42", True),
        ("site[0-9]{1,2}", "site423", False),
        (r"a\,b", "a,b", True),
        ("[a,b]x", ",x", True),
        ("(?i)North", "NORTH", True),
        ("a|b", "ab", False),
        ("north", "", False),
    ],
)
def test_matching(selector: str, provider: str, matches: bool) -> None:
    assert Selector.parse(selector).matches(provider) is matches


@pytest.mark.parametrize("selector", ["north,(", "[a", "*", "a\\", "(?P<x"])
def test_a_wrong_expression_is_named(selector: str) -> None:
    with pytest.raises(SettingsError, match="SELECTOR"):
        Selector.parse(selector)


def test_any_of_the_series() -> None:
    selector = Selector.parse("north")
    assert selector.matches_any(["south", "north"])
    assert not selector.matches_any(["south"])
    assert not selector.matches_any([])
    assert Selector().matches_any([])
