"""Structured reports as HTML and as text."""

import re
from typing import Any

import pytest

from imaging_services.adapters.rendering.report import HTML, TEXT, render_report
from imaging_services.adapters.rendering.report_items import DEEPEST
from imaging_services.domain.manifest.query import DicomJson


def values(vr: str, *found: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(found)}


def code(meaning: str, value: str = "1", scheme: str = "99TEST") -> dict[str, Any]:
    return values(
        "SQ", {"00080100": values("SH", value), "00080102": values("SH", scheme), "00080104": values("LO", meaning)}
    )


def content(kind: str, name: str, relation: str = "CONTAINS", **tags: Any) -> DicomJson:
    elements = {tag.lstrip("_"): value for tag, value in tags.items()}
    return {
        "0040A010": values("CS", relation),
        "0040A040": values("CS", kind),
        **({"0040A043": code(name)} if name else {}),
        **elements,
    }


def report(*items: DicomJson, **tags: Any) -> DicomJson:
    return {
        "00100010": values("PN", {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}),
        "0040A493": values("CS", "VERIFIED"),
        "0040A043": code("CT <Chest> Report"),
        "0040A040": values("CS", "CONTAINER"),
        "0040A730": values("SQ", *items),
        **{tag.lstrip("_"): value for tag, value in tags.items()},
    }


UNIT = {"0040A30A": values("DS", 12.5), "004008EA": code("millimeter", "mm", "UCUM")}
PLAIN = {"0040A30A": values("DS", 3), "004008EA": code("no units", "1", "UCUM")}
REFERENCE = {
    "00081150": values("UI", "1.2.840.10008.5.1.4.1.1.2"),
    "00081155": values("UI", "1.2.3.4"),
    "00081160": values("IS", 2, 5),
}
ITEMS = {
    "Findings: a & b": content("TEXT", "Findings", _0040A160=values("UT", "a & b")),
    "Diameter: 12.5 millimeter": content("NUM", "Diameter", _0040A300=values("SQ", UNIT)),
    "Nodules: 3": content("NUM", "Nodules", _0040A300=values("SQ", PLAIN)),
    "Volume: not measured": content("NUM", "Volume", _0040A301=code("not measured")),
    "Site: Lung (39607008, SCT)": content("CODE", "Site", _0040A168=code("Lung", "39607008", "SCT")),
    "Observer: Smith Jo": content("PNAME", "Observer", _0040A123=values("PN", {"Alphabetic": "Smith^Jo"})),
    "Seen: 20260102": content("DATE", "Seen", _0040A121=values("DA", "20260102")),
    "Study: 1.2.3": content("UIDREF", "Study", _0040A124=values("UI", "1.2.3")),
    "Image: CT Image Storage 1.2.3.4, frames 2, 5": content("IMAGE", "Image", _00081199=values("SQ", REFERENCE)),
    "Outline: polyline of 3 points": content(
        "SCOORD", "Outline", _00700023=values("CS", "POLYLINE"), _00700022=values("FL", 1, 2, 3, 4, 5, 6)
    ),
    "(inferred from) see item 1.2.3": content("", "", "INFERRED FROM", _0040DB73=values("UL", 1, 2, 3)),
    "(modifier) Side: left": content("TEXT", "Side", "HAS CONCEPT MOD", _0040A160=values("UT", "left")),
    "Empty": content("TEXT", "Empty"),
}


@pytest.mark.parametrize("expected", ITEMS)
def test_values_as_text(expected: str) -> None:
    text = render_report(report(ITEMS[expected]), TEXT).decode()
    assert text.splitlines()[-1] == expected


def test_the_head_of_a_report() -> None:
    observer = {"0040A075": values("PN", {"Alphabetic": "Smith^Jo"}), "0040A030": values("DT", "20260103")}
    text = render_report(report(_0040A073=values("SQ", observer)), TEXT).decode()
    assert text.splitlines()[:2] == ["CT <Chest> Report", "================="]
    assert "Patient: Yamada Tarou / 山田 太郎" in text
    assert "Verification: VERIFIED" in text
    assert "Verified by: Smith Jo 20260103" in text


def test_the_tree_is_indented_and_lines_stay_within_it() -> None:
    below = content("TEXT", "Detail", _0040A160=values("UT", "first\r\nsecond"))
    section = content("CONTAINER", "Section", _0040A730=values("SQ", below))
    assert render_report(report(section), TEXT).decode().endswith("\nSection\n  Detail: first\n    second\n")


def test_html_holds_the_text_and_no_markup_of_the_report() -> None:
    hostile = content("TEXT", "<b>Name</b>", _0040A160=values("UT", '<script>alert("x")</script>'))
    hostile["0040A730"] = values("SQ", *ITEMS.values())
    page = render_report(report(hostile), HTML).decode()
    assert "<title>CT &lt;Chest&gt; Report</title>" in page
    assert set(re.findall(r"</?([a-z0-9]+)", page)) == {
        *("html", "head", "meta", "title", "style", "body", "h1", "table", "tr", "th", "td", "ul", "li", "span")
    }
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;" in page
    assert '<span class="name">Diameter</span>: <span class="value">12.5 millimeter</span>' in page
    for tag in ("ul", "li", "span", "table", "tr"):
        assert len(re.findall(f"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag


def test_nesting_has_an_end() -> None:
    innermost = content("TEXT", "far", _0040A160=values("UT", "down"))
    for _ in range(DEEPEST + 10):
        innermost = content("CONTAINER", "", _0040A730=values("SQ", innermost))
    text = render_report(report(innermost), TEXT).decode()
    assert text.splitlines()[-1].strip() == "1 items more"


def test_what_is_no_report_has_a_title_all_the_same() -> None:
    assert render_report({}, TEXT).decode().startswith("Structured report\n")
