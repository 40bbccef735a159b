"""Parsing multipart bodies (RFC 2046 section 5.1) as a stream, in bounded memory and without I/O.

``feed`` takes blocks however they were cut and returns what they complete; the result does not depend on the cuts.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar

from imaging_services.domain.errors import InvalidInput

MAX_PART_HEADERS = 16 * 1024
"""Longest header section of a part, bytes."""
MAX_PADDING = 1024
"""Most white space after a boundary, bytes."""
MAX_BOUNDARY = 200
"""Longest boundary, characters; the RFC says 70."""

_END_OF_LINE = re.compile(rb"[ \t]*(\r?\n)")
_MAYBE_END_OF_LINE = re.compile(rb"[ \t]*\r?")


@dataclass(frozen=True, slots=True)
class PartStart:
    """A part begins: its header fields by lower-case name."""

    headers: dict[str, str]


class PartEnd:
    """The part that began last is complete."""


PartEvent = PartStart | PartEnd | bytes


class _State(Enum):
    PREAMBLE = auto()
    BOUNDARY = auto()
    HEADERS = auto()
    BODY_START = auto()
    BODY = auto()
    EPILOGUE = auto()


class MultipartParser:
    """One body. Lines may end with CRLF or, when the first boundary line does, with LF alone.

    Raises ``InvalidInput`` for a boundary that cannot be and for headers without end.
    """

    def __init__(self, boundary: str) -> None:
        if not 1 <= len(boundary) <= MAX_BOUNDARY or not boundary.isascii():
            raise InvalidInput(f"a multipart boundary has 1 to {MAX_BOUNDARY} ASCII characters")
        self._mark = b"\n--" + boundary.encode("ascii")
        self._delimiter = self._mark
        self._state = _State.PREAMBLE
        self._buffer = b"\n"  # the first boundary may be the first line
        self._in_part = False
        self.parts = 0

    def feed(self, block: bytes) -> list[PartEvent]:
        """Take the next block; returns the events it completes, data as non-empty bytes."""
        self._buffer = self._buffer + block if self._buffer else block
        events: list[PartEvent] = []
        while self._STEPS[self._state](self, events):
            pass
        return events

    def close(self) -> list[PartEvent]:
        """The body has ended, which completes nothing. Raises ``InvalidInput`` when the final boundary has not been
        seen."""
        if self._state is not _State.EPILOGUE:
            what = "it has no part" if self._state is _State.PREAMBLE else "it is cut before the final boundary"
            raise InvalidInput(f"the multipart body is malformed: {what}")
        return []

    def _preamble(self, _events: list[PartEvent]) -> bool:
        found = self._buffer.find(self._mark)
        if found < 0:
            self._buffer = self._buffer[-len(self._mark) :]
            return False
        self._buffer = self._buffer[found + len(self._mark) :]
        self._state = _State.BOUNDARY
        return True

    def _boundary(self, events: list[PartEvent]) -> bool:
        """After a delimiter: the end of its line, two hyphens, or something that shows it was none."""
        if self._buffer.startswith(b"--"):
            self._end_part(events)
            self._state = _State.EPILOGUE
            return True
        line = _END_OF_LINE.match(self._buffer)
        if line:
            self._end_part(events)
            if self.parts == 0 and line[1] == b"\r\n":
                self._delimiter = b"\r" + self._mark
            self._buffer = self._buffer[line.end() :]
            self._state = _State.HEADERS
            return True
        if self._buffer in (b"", b"-") or (
            _MAYBE_END_OF_LINE.fullmatch(self._buffer) and len(self._buffer) <= MAX_PADDING
        ):
            return False
        if self._in_part:
            events.append(self._delimiter)
        self._state = _State.BODY if self._in_part else _State.PREAMBLE
        return True

    def _headers(self, events: list[PartEvent]) -> bool:
        match = re.match(rb"\r?\n", self._buffer) or re.search(rb"\n\r?\n", self._buffer)
        if not match:
            if len(self._buffer) > MAX_PART_HEADERS:
                raise InvalidInput(f"the headers of a part are longer than {MAX_PART_HEADERS} bytes")
            return False
        if match.start() > MAX_PART_HEADERS:
            raise InvalidInput(f"the headers of a part are longer than {MAX_PART_HEADERS} bytes")
        events.append(PartStart(_parse_headers(self._buffer[: match.start()])))
        self._in_part = True
        self.parts += 1
        self._buffer = self._buffer[match.end() :]
        self._state = _State.BODY_START
        return True

    def _body_start(self, _events: list[PartEvent]) -> bool:
        """A part without data may have no line break of its own before the next boundary."""
        mark = self._mark[1:]
        if len(self._buffer) < len(mark) and mark.startswith(self._buffer):
            return False
        self._state = _State.BODY
        if self._buffer.startswith(mark):
            self._buffer = self._buffer[len(mark) :]
            self._state = _State.BOUNDARY
        return True

    def _body(self, events: list[PartEvent]) -> bool:
        found = self._buffer.find(self._delimiter)
        if found >= 0:
            data, self._buffer = self._buffer[:found], self._buffer[found + len(self._delimiter) :]
            self._state = _State.BOUNDARY
        else:
            data, self._buffer = self._without_beginning_of_delimiter()
        if data:
            events.append(data)
        return found >= 0

    def _without_beginning_of_delimiter(self) -> tuple[bytes, bytes]:
        """The buffer, and what at its end may begin a delimiter: mostly nothing, then no byte is copied."""
        buffer = self._buffer
        last = max(len(buffer) - len(self._delimiter) + 1, 0)
        found = buffer.find(self._delimiter[:1], last)
        return (buffer, b"") if found < 0 else (buffer[:found], buffer[found:])

    def _epilogue(self, _events: list[PartEvent]) -> bool:
        self._buffer = b""
        return False

    def _end_part(self, events: list[PartEvent]) -> None:
        if self._in_part:
            events.append(PartEnd())
            self._in_part = False

    _STEPS: ClassVar = {
        _State.PREAMBLE: _preamble,
        _State.BOUNDARY: _boundary,
        _State.HEADERS: _headers,
        _State.BODY_START: _body_start,
        _State.BODY: _body,
        _State.EPILOGUE: _epilogue,
    }


def _parse_headers(section: bytes) -> dict[str, str]:
    """Header fields by lower-case name; folded lines are joined, lines without a colon left out."""
    unfolded = re.sub(rb"\r?\n[ \t]+", b" ", section).decode("latin-1")
    fields = (line.partition(":") for line in unfolded.splitlines())
    return {name.strip().lower(): value.strip() for name, colon, value in fields if colon}
