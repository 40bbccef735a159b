"""Taking multipart/related responses apart with the standard library, independent of our own parser."""

from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP

import httpx


@dataclass(frozen=True)
class Part:
    """One body part; header names are lower case."""

    headers: dict[str, str]
    body: bytes


def parts(response: httpx.Response) -> list[Part]:
    """The parts of a multipart response. Raises AssertionError when it is not a complete one."""
    holder = Message()
    holder["content-type"] = response.headers["content-type"]
    assert holder.get_content_maintype() == "multipart", response.headers["content-type"]
    delimiter = b"--" + str(holder.get_param("boundary")).encode()
    content = b"\r\n" + response.content
    pieces = content.split(b"\r\n" + delimiter)
    assert pieces[-1].startswith(b"--"), "the final boundary is missing"
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    head, _, body = piece.partition(b"\r\n\r\n")
    headers = BytesParser(policy=HTTP).parsebytes(head.lstrip(b"\r\n") + b"\r\n\r\n", headersonly=True)
    return Part({name.lower(): str(value) for name, value in headers.items()}, body)
