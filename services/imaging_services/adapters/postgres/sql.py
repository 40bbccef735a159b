"""The statements of ``queries.sql`` by name."""

import re
from functools import cache
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def _statements() -> dict[str, bytes]:
    text = (resources.files("imaging_services.adapters.postgres") / "queries.sql").read_text("utf-8")
    pieces = _NAME.split(text)[1:]
    return {name: _without_comments(body).encode() for name, body in zip(pieces[::2], pieces[1::2], strict=True)}


def statement(name: str) -> bytes:
    """The statement of that name, with psycopg's placeholders."""
    return _statements()[name]


def _without_comments(body: str) -> str:
    return "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip()
