"""From HTTP to the error tree: what a status or a failed exchange means for whoever asked."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from imaging_services.domain.errors import (
    BackendUnavailable,
    Conflict,
    DeadlineExceeded,
    ImagingError,
    InvalidInput,
    NotFound,
    Refused,
)

# RFC 9110 section 15, RFC 6585, RFC 8470: the same request may succeed later.
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504, 507})
_DETAIL = 300  # characters of the peer's answer that go into our sentence
_CERTIFICATE = re.compile(r"certificate verify failed: (.*?) ?\(_ssl")


@contextmanager
def http_errors(doing: str, *, ca_setting: str = "SSL_CERT_FILE") -> Iterator[None]:
    """Turn httpx's exceptions into ours; ``doing`` begins the sentence of the error, ``ca_setting`` is the variable
    that names authorities to trust."""
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise BackendUnavailable(f"{doing}: no connection in time") from error
    except httpx.TimeoutException as error:
        raise DeadlineExceeded(f"{doing}: no answer in time") from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise InvalidInput(f"{doing}: {error}") from error
    except httpx.HTTPError as error:
        refused = _CERTIFICATE.search(str(error))
        if refused:
            raise BackendUnavailable(
                f"{doing}: the server's certificate is refused ({refused[1]}): if it is genuine, set {ca_setting} to a"
                " PEM file of the authority that issued it"
            ) from error
        raise BackendUnavailable(f"{doing}: {type(error).__name__} {error}") from error


def error_of(doing: str, status: int, detail: str, location: str | None = None) -> ImagingError:
    """The error of a status that is not 2xx; ``detail`` is the beginning of the peer's answer."""
    sentence = f"{doing}: {status} {' '.join(detail.split())[:_DETAIL]}".rstrip()
    if 300 <= status < 400:
        return Refused(f"{doing}: {status} redirects to {location}; redirects are not followed, set the final URL")
    if status in _LATER:
        return BackendUnavailable(sentence)
    if status in (404, 410):
        return NotFound(sentence)
    if status == 409:
        return Conflict(sentence)
    return Refused(sentence)
