"""The OpenAPI document as a page to read: plain HTML, nothing is loaded from anywhere."""

from collections.abc import Sequence
from html import escape
from typing import Any

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}
code{background:#f0f2f5;padding:.1em .3em}summary{cursor:pointer}details{border-bottom:1px solid #ddd;padding:.4em 0}
table{border-collapse:collapse;margin:.5em 0 1em}td,th{border:1px solid #ddd;padding:.2em .6em;text-align:left;
vertical-align:top}b{display:inline-block;min-width:4.5em}"""


def openapi_page(document: dict[str, Any]) -> str:
    """Every operation with its parameters, media types and statuses."""
    info = document["info"]
    known = {f"#/components/parameters/{key}": one for key, one in document["components"]["parameters"].items()}
    operations = "\n".join(
        _operation(
            path, method, operation, [*item["parameters"], *(known[one["$ref"]] for one in operation["parameters"])]
        )
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    )
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f'<p>{escape(info["description"])}</p><p>The same for programs: <a href="openapi.json">openapi.json</a></p>'
        f"{operations}</body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any], taken: list[dict[str, Any]]) -> str:
    parameters = [(one["name"], one["in"], one["description"]) for one in taken]
    body = operation.get("requestBody", {}).get("content", {})
    answers = [
        (status, answer["description"], ", ".join(answer.get("content", {})))
        for status, answer in operation["responses"].items()
    ]
    return (
        f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code> {escape(operation['summary'])}"
        f"</summary><p>{escape(operation['description'])}</p>"
        + (f"<p>Body: {escape(', '.join(body))}</p>" if body else "")
        + _table(("parameter", "in", "meaning"), parameters)
        + _table(("status", "meaning", "media types"), answers)
        + "</details>"
    )


def _table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{title}</th>" for title in titles)
    lines = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{lines}</table>"
