"""Writing ``multipart/related`` answers (RFC 2387, RFC 2046; PS3.18 section 8.6.1.2)."""

import secrets
from collections.abc import Mapping


class MultipartWriter:
    """Makes the bytes between the parts; the parts themselves are streamed by whoever holds them."""

    def __init__(self, boundary: str | None = None) -> None:
        self.boundary = boundary or secrets.token_hex(16)

    def content_type(self, part_type: str, transfer_syntax_uid: str | None = None) -> str:
        """The Content-Type of the whole answer."""
        suffix = f"; transfer-syntax={transfer_syntax_uid}" if transfer_syntax_uid else ""
        return f'multipart/related; type="{part_type}"{suffix}; boundary={self.boundary}'

    def head(self, headers: Mapping[str, str], *, first: bool) -> bytes:
        """What precedes a part: the delimiter, its headers and the empty line."""
        lines = [f"{'' if first else chr(13) + chr(10)}--{self.boundary}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")

    @property
    def end(self) -> bytes:
        """The closing delimiter, after the last part."""
        return f"\r\n--{self.boundary}--\r\n".encode()
