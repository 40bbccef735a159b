"""Structured reports for people: the content tree (PS3.3 section C.17.3) as HTML or as indented text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

from imaging_services.adapters.rendering.report_items import Item, content_item, person_name, strings
from imaging_services.domain.manifest.query import DicomJson

HTML = "text/html"
TEXT = "text/plain"

_HEAD = (
    ("Patient", "00100010"),
    ("Patient ID", "00100020"),
    ("Born", "00100030"),
    ("Sex", "00100040"),
    ("Study", "00081030"),
    ("Study date", "00080020"),
    ("Accession number", "00080050"),
    ("Referring physician", "00080090"),
    ("Institution", "00080080"),
    ("Content date", "00080023"),
    ("Completion", "0040A491"),
    ("Verification", "0040A493"),
)
_VERIFYING_OBSERVERS = "0040A073"
_VERIFYING_OBSERVER_NAME = "0040A075"
_VERIFICATION_DATE_TIME = "0040A030"
_STYLE = (
    "body{font:15px/1.45 sans-serif;margin:2em auto;max-width:50em;padding:0 1em;color:#222}"
    "h1{font-size:1.4em}table{border-collapse:collapse;margin:1em 0}th{text-align:left;padding-right:1.5em;"
    "font-weight:normal;color:#666;vertical-align:top}ul{list-style:none;padding-left:1.2em;margin:.2em 0}"
    "li{margin:.25em 0}.name{font-weight:bold}.relation{color:#666;font-size:.85em}.value{white-space:pre-wrap}"
)


@dataclass(frozen=True, slots=True)
class _Report:
    title: str
    head: Sequence[tuple[str, str]] = field(default_factory=tuple)
    items: Sequence[Item] = field(default_factory=tuple)


def render_report(document: DicomJson, media_type: str) -> bytes:
    """The report as ``text/html`` or ``text/plain`` in UTF-8; ``document`` is the instance in the DICOM JSON Model."""
    root = content_item(document)
    report = _Report(root.name or "Structured report", list(_head(document)), root.children)
    lines = _html(report) if media_type == HTML else _text(report)
    return "\n".join(lines).encode("utf-8") + b"\n"


def _head(document: DicomJson) -> Iterator[tuple[str, str]]:
    for label, tag in _HEAD:
        value = ", ".join(strings(document, tag))
        if value:
            yield label, value
    for observer in document.get(_VERIFYING_OBSERVERS, {}).get("Value", []):
        names = [person_name(name) for name in observer.get(_VERIFYING_OBSERVER_NAME, {}).get("Value", [])]
        when = strings(observer, _VERIFICATION_DATE_TIME)
        yield "Verified by", " ".join(filter(None, [*names, *when]))


def _html(report: _Report) -> Iterator[str]:
    yield f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(report.title)}</title>'
    yield f"<style>{_STYLE}</style></head><body><h1>{escape(report.title)}</h1><table>"
    for label, value in report.head:
        yield f"<tr><th>{escape(label)}</th><td>{escape(value)}</td></tr>"
    yield "</table>"
    yield from _html_list(report.items)
    yield "</body></html>"


def _html_list(items: Sequence[Item]) -> Iterator[str]:
    if not items:
        return
    yield "<ul>"
    for item in items:
        relation = f'<span class="relation">{escape(item.relation)}</span> ' if item.relation else ""
        name = f'<span class="name">{escape(item.name)}</span>' if item.name else ""
        between = ": " if item.name and item.value else ""
        value = f'<span class="value">{escape(item.value)}</span>' if item.value else ""
        yield f"<li>{relation}{name}{between}{value}"
        yield from _html_list(item.children)
        yield "</li>"
    yield "</ul>"


def _text(report: _Report) -> Iterator[str]:
    yield report.title
    yield "=" * min(79, len(report.title))
    yield ""
    for label, value in report.head:
        yield f"{label}: {value}"
    yield ""
    yield from _text_list(report.items, "")


def _text_list(items: Sequence[Item], indent: str) -> Iterator[str]:
    for item in items:
        relation = f"({item.relation}) " if item.relation else ""
        value = item.value.replace("\r\n", "\n").replace("\r", "\n").replace("\n", f"\n{indent}  ")
        yield f"{indent}{relation}{item.name}{': ' if item.name and value else ''}{value}"
        yield from _text_list(item.children, indent + "  ")
