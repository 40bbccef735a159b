"""Study header documents by HTTP (``…/studies/{study}/headers.xml.gz``) and by the SOAP contract."""

import base64

import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from imaging_services.apps.dicomweb_ingestion.resources import scope_of
from imaging_services.apps.dicomweb_ingestion.responses import not_modified, validators
from imaging_services.apps.dicomweb_ingestion.streaming.study_headers import StudyHeaders
from imaging_services.domain.dicom.uids import is_uid
from imaging_services.domain.errors import ImagingError, InvalidInput, NotFound, RetryableError
from imaging_services.domain.streaming.mtom import TEXT_XML, VALUE_REFERENCE, SoapMessage, mtom_message, read_message
from imaging_services.domain.streaming.soap import (
    SOAP_ACTION,
    StudyHeaderRequest,
    fault_envelope,
    read_request,
    response_envelope,
)
from imaging_services.domain.streaming.wsdl import wsdl

log = structlog.get_logger(__name__)

SOAP_PATH = "/HeaderStreaming/HeaderStreaming"
LONGEST_REQUEST = 64 * 1024
"""Bytes of a SOAP request; a real one has about 1000."""

_XML = f"{TEXT_XML}; charset=utf-8"


def header_document_router(headers: StudyHeaders, provider: str) -> APIRouter:
    """The document beside the other resources of a study, with the validators of metadata."""

    async def retrieve(request: Request) -> Response:
        found = await headers.document(scope_of(request, provider).study_instance_uid)
        names = validators(found.locations, "headers", *found.unread)  # these may be there the next time
        return not_modified(request, names) or Response(found.content, 200, names, "application/gzip")

    router = APIRouter()
    router.add_api_route("/studies/{study}/headers.xml.gz", retrieve, methods=["GET"], response_model=None)
    return router


def header_streaming_router(headers: StudyHeaders, provider: str) -> APIRouter:
    """The SOAP endpoint: an answer comes in the form, plain or MTOM, in which the request came."""

    async def call(request: Request) -> Response:
        try:
            message = await _message(request)
            return await _answer(message, headers, provider)
        except ImagingError as error:
            return _fault(error)

    async def describe(request: Request) -> Response:
        return Response(wsdl(str(request.url.replace(query=""))), media_type=_XML)

    router = APIRouter()
    router.add_api_route(SOAP_PATH, call, methods=["POST"], response_model=None)
    router.add_api_route(SOAP_PATH, describe, methods=["GET"], response_model=None)
    return router


async def _message(request: Request) -> SoapMessage:
    action = request.headers.get("soapaction", "").strip('" ')
    if action not in ("", SOAP_ACTION):
        raise InvalidInput(f"there is no SOAP action {action[:100]!r} here")
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > LONGEST_REQUEST:
            raise InvalidInput(f"the SOAP request is longer than {LONGEST_REQUEST} bytes")
    return read_message(request.headers.get("content-type", ""), bytes(body))


async def _answer(message: SoapMessage, headers: StudyHeaders, provider: str) -> Response:
    asked = read_request(message)
    if asked.server_ae_title != provider:
        raise InvalidInput(f"there is no partition {asked.server_ae_title[:64]!r} here")
    content = await _document(asked, headers)
    if not message.mtom:
        return Response(response_envelope(base64.b64encode(content).decode()), media_type=_XML)
    content_type, body = mtom_message(response_envelope(VALUE_REFERENCE), content)
    return Response(body, headers={"Content-Type": content_type, "MIME-Version": "1.0"})


async def _document(asked: StudyHeaderRequest, headers: StudyHeaders) -> bytes:
    if not is_uid(asked.study_instance_uid):
        raise NotFound("StudyInstanceUID is not a UID")
    return (await headers.document(asked.study_instance_uid)).content


def _fault(error: ImagingError) -> Response:
    """SOAP 1.1 faults have status 500 on HTTP, whosever fault it is."""
    detail = "StudyNotFoundFault" if isinstance(error, NotFound) else None
    server = isinstance(error, RetryableError)
    log.info("soap fault", error=type(error).__name__, server=server)
    return Response(fault_envelope(str(error), detail=detail, server=server), 500, media_type=_XML)
