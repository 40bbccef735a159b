"""Content coding: what is compressed, how it is chosen, and that ETags follow the bytes."""

import gzip
from typing import Any

import httpx
import pytest
import zstandard

from imaging_services.apps.dicomweb_ingestion.compression import Compression, choose_coding, is_document

LONG = b'{"a": "' + b"word " * 1000 + b'"}'


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("GZIP;Q=1", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd;q=0.5, gzip", "gzip"),
        ("gzip;q=0", None),
        ("gzip; q=0.000, zstd ;q=0", None),
        ("*", "zstd"),
        ("*;q=0.1, zstd;q=0", "gzip"),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip", "gzip"),
        ("gzip;q=much", None),
        ("br", None),
    ],
)
def test_the_client_chooses(accepted: str, chosen: str | None) -> None:
    assert choose_coding(accepted) == chosen


@pytest.mark.parametrize(
    ("content_type", "document"),
    [
        ("application/dicom+json", True),
        ("application/json; charset=utf-8", True),
        ("application/problem+json", True),
        ("application/vnd.sun.wadl+xml", True),
        ("text/html; charset=utf-8", True),
        ('multipart/related; type="application/dicom+xml"; boundary=x', True),
        ('multipart/related; type="application/dicom"; boundary=x', False),
        ('multipart/related; type="application/octet-stream"', False),
        ('multipart/related; type="application/xop+xml"', False),
        ("application/dicom", False),
        ("application/octet-stream", False),
        ("image/jpeg", False),
        ("video/mp4", False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_only_documents_are_compressed(content_type: str, document: bool) -> None:
    assert is_document(content_type) is document


def application(blocks: list[bytes], status: int = 200, **headers: str) -> Any:
    seen: list[dict[str, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append({name.decode(): value.decode() for name, value in scope["headers"]})
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        for number, block in enumerate(blocks, 1):
            await send({"type": "http.response.body", "body": block, "more_body": number < len(blocks)})

    app.seen = seen  # type: ignore[attr-defined]
    return app


async def asked(app: Any, **headers: str) -> httpx.Response:
    """The answer with its body as it was sent."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = httpx.ASGITransport(Compression(app))
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://here") as client,
        client.stream("GET", "/", headers={"accept-encoding": "", **names}) as answer,
    ):
        answer._content = b"".join([block async for block in answer.aiter_raw()])
        return answer


@pytest.mark.parametrize("blocks", [[LONG], [LONG[:1], LONG[1:2000], LONG[2000:], b""]])
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_the_body_is_the_same_when_unpacked(blocks: list[bytes], coding: str) -> None:
    app = application(blocks, content_type="application/json", content_length=str(len(LONG)), etag='"tag"')
    answer = await asked(app, accept_encoding=coding)
    unpacked = (
        gzip.decompress(answer.content)
        if coding == "gzip"
        else zstandard.ZstdDecompressor().decompressobj().decompress(answer.content)
    )
    assert unpacked == LONG
    assert len(answer.content) < len(LONG) / 5
    assert answer.headers["content-encoding"] == coding
    assert answer.headers["etag"] == f'"tag-{coding}"'
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.headers.get("content-length") == (str(len(answer.content)) if len(blocks) == 1 else None)
    assert "accept-encoding" not in app.seen[0]


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {"content_type": "application/dicom"}),
        (200, {"content_type": "image/png"}),
        (206, {"content_type": "application/json", "content_range": "bytes 0-99/200"}),
        (200, {"content_type": "application/json", "content_encoding": "gzip"}),
    ],
)
async def test_what_is_not_compressed_comes_as_it_is(status: int, headers: dict[str, str]) -> None:
    app = application([LONG], status, etag='"tag"', content_length=str(len(LONG)), **headers)
    answer = await asked(app, accept_encoding="gzip, zstd")
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (status, LONG, '"tag"')
    assert answer.headers["content-length"] == str(len(LONG))


async def test_short_answers_and_clients_without_codings_get_it_plainly() -> None:
    short = await asked(application([b"[]"], content_type="application/json"), accept_encoding="gzip")
    plain = await asked(application([LONG], content_type="application/json", vary="Accept"))
    assert (short.content, "content-encoding" in short.headers) == (b"[]", False)
    assert (plain.content, plain.headers["vary"]) == (LONG, "Accept, Accept-Encoding")


async def test_the_first_block_of_a_long_answer_is_not_held_back() -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"[1", "more_body": True})
        assert (b"content-encoding", b"zstd") in sent[0]["headers"]
        packed = sent[1]["body"]
        assert zstandard.ZstdDecompressor().decompressobj().decompress(packed) == b"[1"
        await send({"type": "http.response.body", "body": b"]"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(b"accept-encoding", b"zstd")]}
    await Compression(app)(scope, None, send)  # type: ignore[arg-type]
    assert sent[-1]["more_body"] is False


async def test_etags_of_both_representations_are_recognised() -> None:
    app = application([b""], 304, etag='"tag"')
    compressed = await asked(app, accept_encoding="gzip", if_none_match='"other-gzip", "tag-gzip"')
    assert (compressed.headers["etag"], app.seen[-1]["if-none-match"]) == ('"tag-gzip"', '"other", "tag"')
    plain = await asked(app, accept_encoding="gzip", if_none_match='"tag"')
    assert plain.headers["etag"] == '"tag"'
    another = await asked(app, accept_encoding="zstd", if_none_match='"tag-gzip"')
    assert app.seen[-1]["if-none-match"] == '"tag-gzip"'  # not what this client would get now
    assert another.headers["etag"] == '"tag"'
