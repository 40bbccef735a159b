"""STOW-RS: storing instances (PS3.18 section 10.5)."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog
from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from imaging_services.apps.dicomweb_ingestion.problems import problem
from imaging_services.apps.dicomweb_ingestion.resources import base_url
from imaging_services.apps.dicomweb_ingestion.stow_budget import Budget
from imaging_services.apps.dicomweb_ingestion.stow_form import Form, form_of
from imaging_services.apps.dicomweb_ingestion.stow_metadata import MetadataReceiver
from imaging_services.apps.dicomweb_ingestion.stow_parts import PartReceiver
from imaging_services.apps.dicomweb_ingestion.stow_response import encode, status_of, store_instances_response
from imaging_services.domain.dicom.media_types import (
    DICOM_JSON,
    DICOM_XML,
    JSON,
    parse_accept,
)
from imaging_services.domain.dicom.uids import is_uid
from imaging_services.domain.errors import InvalidInput, SettingsError
from imaging_services.domain.ingest.ingest import Ingest
from imaging_services.domain.ingest.urgency import NOTHING_URGENT, Urgency, UrgentSeries

log = structlog.get_logger(__name__)

Receiver = PartReceiver | MetadataReceiver

_SIZE = re.compile(r"(\d+)\s*([KMGT]?)I?B?", re.IGNORECASE)
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


@dataclass(frozen=True, slots=True)
class StowLimits:
    """Bounds of STOW-RS.

    ``max_body`` is the longest request body in bytes (None: any), ``concurrency`` how many instances of one request
    are stored at once, ``memory`` how many bytes of received instances may wait to be stored, over all requests.
    """

    max_body: int | None = None
    concurrency: int = 8
    memory: int = 64 * 1024 * 1024


def parse_size(text: str) -> int | None:
    """``MAX_STOW_SIZE``: bytes, or with K, M, G, T as in ``10240K``; empty and 0 mean any size.

    Raises ``SettingsError``.
    """
    found = _SIZE.fullmatch(text.strip())
    if not text.strip():
        return None
    if not found:
        raise SettingsError(f"MAX_STOW_SIZE: {text!r} is not a size such as 10240K")
    return int(found[1]) << _UNITS[found[2].upper()] or None


def stow_router(ingest: Ingest, limits: StowLimits | None = None, urgency: Urgency = NOTHING_URGENT) -> APIRouter:
    """``POST /studies`` and ``POST /studies/{study}``, to be mounted under every prefix that stores; ``urgency`` says
    which instances' events overtake others.

    Errors of the request are raised as ``HTTPException`` or ``ImagingError`` for the application's problem documents.
    """
    service = _Stow(ingest, limits or StowLimits(), urgency)
    router = APIRouter()
    for path in ("/studies", "/studies/{study}"):
        router.add_api_route(path, service.store, methods=["POST"], response_class=Response, include_in_schema=False)
    return router


class _Stow:
    def __init__(self, ingest: Ingest, limits: StowLimits, urgency: Urgency) -> None:
        self._ingest = ingest
        self._urgency = urgency
        self._limits = limits
        self._budget = Budget(limits.memory)

    async def store(self, request: Request) -> Response:
        """Store every part of the request."""
        try:
            media_type = _response_type(request)
            form = form_of(request.headers.get("content-type"))
            self._require_length(request)
            receiver = self._receiver(request, form)
        except (InvalidInput, HTTPException) as error:
            if request.headers.get("expect", "").lower() != "100-continue":
                raise
            # Nothing has been read, so the client is not told to send; it may not do so after this (RFC 9110 10.1.1).
            return problem(request, *_told(error), {"Connection": "close"})
        try:
            await receiver.receive(self._body(request), form.parser)
        except ClientDisconnect:
            log.warning("connection lost while storing", **_counts(receiver))
            return Response(status_code=400)  # nobody is there to read it
        except (InvalidInput, HTTPException) as error:
            log.warning("store request broken off", reason=str(error), **_counts(receiver))
            return _broken_off(request, error, receiver)
        if not receiver.outcomes:
            raise InvalidInput("the request has no part with an instance")
        status = status_of(receiver.outcomes)
        document = store_instances_response(receiver.outcomes, base_url(request, self._ingest.wado_external))
        log.info("store request answered", status=status, **_counts(receiver))
        headers = {"Retry-After": "2"} if status >= 500 else None
        return Response(encode(document, media_type), status, headers, media_type)

    def _receiver(self, request: Request, form: Form) -> Receiver:
        study, concurrency = _study(request), self._limits.concurrency
        urgent = UrgentSeries(self._urgency)
        if not form.metadata:
            return PartReceiver(self._ingest, self._budget, study=study, concurrency=concurrency, urgent=urgent)
        location = str(request.url)
        return MetadataReceiver(
            self._ingest,
            self._budget,
            study=study,
            concurrency=concurrency,
            location=location,
            max_body=self._limits.max_body,
            urgent=urgent,
        )

    def _require_length(self, request: Request) -> None:
        """Raise HTTP 413 when the length that is declared is too long already."""
        limit, declared = self._limits.max_body, request.headers.get("content-length", "")
        if limit is not None and declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)

    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """The body's blocks, up to the limit. Raises HTTP 413."""
        limit = self._limits.max_body
        received = 0
        async for block in request.stream():
            received += len(block)
            if limit is not None and received > limit:
                raise _too_large(limit)
            if block:
                yield block


def _response_type(request: Request) -> str:
    """JSON unless XML is asked for. Raises HTTP 406."""
    for wanted in parse_accept(", ".join(request.headers.getlist("accept"))):
        if wanted.payload in (DICOM_XML, "application/xml", "text/xml"):
            return DICOM_XML
        if wanted.payload in (DICOM_JSON, JSON, "application/*", "*/*", "*"):
            return DICOM_JSON
    raise HTTPException(406, f"none of the accepted media types is available; available: {DICOM_JSON}, {DICOM_XML}")


def _study(request: Request) -> str | None:
    study: str | None = request.path_params.get("study")
    if study is not None and not is_uid(study):
        raise InvalidInput("the study of the path is not a UID: up to 64 digits and dots")
    return study


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the request is longer than MAX_STOW_SIZE, {limit} bytes")


def _broken_off(request: Request, error: InvalidInput | HTTPException, receiver: Receiver) -> Response:
    """A problem document that says how many instances had come whole and are stored.

    The connection stays: the server reads the rest of the body away, so that the client gets to read the answer.
    """
    status, detail = _told(error)
    stored = _counts(receiver)["stored"]
    return problem(request, status, f"{detail}; instances stored before that: {stored}")


def _told(error: InvalidInput | HTTPException) -> tuple[int, str]:
    return (error.status_code, error.detail) if isinstance(error, HTTPException) else (400, str(error))


def _counts(receiver: Receiver) -> dict[str, int]:
    stored = sum(outcome.ingested is not None for outcome in receiver.outcomes)
    return {"stored": stored, "failed": len(receiver.outcomes) - stored}
