"""The SOAP 1.1 contract of header streaming, ``IHeaderStreamingService``: messages of both sides."""

import base64
import binascii
from dataclasses import dataclass

from imaging_services.domain.errors import BackendUnavailable, ImagingError, InvalidInput, NotFound, Refused
from imaging_services.domain.streaming.mtom import SoapMessage, referenced
from imaging_services.domain.streaming.text import attribute_xml
from imaging_services.domain.streaming.xml_events import parse_xml

ENVELOPE = "http://schemas.xmlsoap.org/soap/envelope/"
SERVICE = "http://tempuri.org/"
CONTRACT = "http://schemas.datacontract.org/2004/07/ClearCanvas.Dicom.ServiceModel.Streaming"
SOAP_ACTION = f"{SERVICE}IHeaderStreamingService/GetStudyHeader"

_OPENING = f'<s:Envelope xmlns:s="{ENVELOPE}"><s:Body>'
_CLOSING = "</s:Body></s:Envelope>"
_LONGEST_REASON = 400


@dataclass(frozen=True, slots=True)
class StudyHeaderRequest:
    """``reference_id`` is the caller's ticket, for logs."""

    calling_ae_title: str
    server_ae_title: str
    study_instance_uid: str
    reference_id: str
    ignore_in_use: bool = True


def read_request(message: SoapMessage) -> StudyHeaderRequest:
    """Read ``GetStudyHeader``; parameters may come in any order. Raises ``InvalidInput``."""
    found = _read(message.envelope)
    if f"{{{SERVICE}}}GetStudyHeader" not in found.body:
        raise InvalidInput("the SOAP body has no GetStudyHeader")
    values = found.texts
    missing = [name for name in ("ReferenceID", "ServerAETitle", "StudyInstanceUID") if not values.get(name)]
    if missing:
        raise InvalidInput(f"the parameter is missing or empty: {', '.join(missing)}")
    return StudyHeaderRequest(
        values.get("callingAETitle", ""),
        values["ServerAETitle"],
        values["StudyInstanceUID"],
        values["ReferenceID"],
        values.get("IgnoreInUse", "").lower() in ("true", "1"),
    )


def request_envelope(request: StudyHeaderRequest) -> str:
    """``GetStudyHeader``, its parameters in the alphabetical order that a .NET server needs."""
    values = {
        "IgnoreInUse": "true" if request.ignore_in_use else "false",
        "ReferenceID": request.reference_id,
        "ServerAETitle": request.server_ae_title,
        "StudyInstanceUID": request.study_instance_uid,
    }
    parameters = "".join(f"<d:{name}>{_content(value)}</d:{name}>" for name, value in values.items())
    calling = f"<callingAETitle>{_content(request.calling_ae_title)}</callingAETitle>"
    return (
        f'{_OPENING}<GetStudyHeader xmlns="{SERVICE}">{calling}'
        f'<parameters xmlns:d="{CONTRACT}">{parameters}</parameters></GetStudyHeader>{_CLOSING}'
    )


def response_envelope(value: str) -> str:
    """``GetStudyHeaderResponse``; ``value`` is base64, or the reference to a part."""
    result = f"<GetStudyHeaderResult>{value}</GetStudyHeaderResult>"
    return f'{_OPENING}<GetStudyHeaderResponse xmlns="{SERVICE}">{result}</GetStudyHeaderResponse>{_CLOSING}'


def fault_envelope(reason: str, *, detail: str | None = None, server: bool = False) -> str:
    """A fault; ``detail`` names an empty fault of the contract, ``server`` says that it is not the caller's."""
    code = "s:Server" if server else "s:Client"
    text = f'<faultstring xml:lang="en">{_content(reason[:_LONGEST_REASON])}</faultstring>'
    more = f'<detail><{detail} xmlns="{CONTRACT}"/></detail>' if detail else ""
    return f"{_OPENING}<s:Fault><faultcode>{code}</faultcode>{text}{more}</s:Fault>{_CLOSING}"


def read_response(message: SoapMessage) -> bytes:
    """The compressed study XML of a response. Raises what its fault says: ``NotFound``, ``BackendUnavailable`` for a
    study that is in use or is being restored, ``Refused`` for anything else."""
    found = _read(message.envelope)
    if f"{{{ENVELOPE}}}Fault" in found.body:
        raise _error_of(found)
    if f"{{{SERVICE}}}GetStudyHeaderResult" not in found.body:
        raise InvalidInput("the SOAP answer has no GetStudyHeaderResult")
    if found.include is not None:
        return referenced(message, found.include)
    try:
        return base64.b64decode(found.texts.get("GetStudyHeaderResult", ""), validate=False)
    except binascii.Error as error:
        raise InvalidInput(f"the study header is not base64: {error}") from None


def _error_of(found: "_Envelope") -> ImagingError:
    reason = found.texts.get("faultstring", "no reason given")[:_LONGEST_REASON]
    names = {name.rpartition("}")[2] for name in found.body}
    if "StudyNotFoundFault" in names:
        return NotFound(reason)
    if names & {"StudyIsInUseFault", "StudyIsNearlineFault"} or found.texts.get("faultcode", "").endswith("Server"):
        return BackendUnavailable(reason)
    return Refused(reason)


@dataclass(slots=True)
class _Envelope:
    """What stands in a SOAP body: names of elements, texts by local name, the reference to a part."""

    body: set[str]
    texts: dict[str, str]
    include: str | None = None


def _read(content: bytes) -> _Envelope:
    found = _Envelope(set(), {})
    path: list[str] = []
    pieces: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        path.append(name)
        pieces.clear()
        if path[:1] != [f"{{{ENVELOPE}}}Envelope"]:
            raise InvalidInput("the XML is no SOAP 1.1 envelope")
        if path[1:2] == [f"{{{ENVELOPE}}}Header"]:
            if attributes.get(f"{ENVELOPE}}}mustUnderstand") == "1":
                raise InvalidInput("the SOAP header has an entry that must be understood and is not")
        elif path[1:2] == [f"{{{ENVELOPE}}}Body"]:
            found.body.add(name)
            if name.endswith("/xop/include}Include"):
                found.include = attributes.get("href", "")

    def end(name: str) -> None:
        in_body = path[1:2] == [f"{{{ENVELOPE}}}Body"]  # entries of the header may have names like ours
        path.pop()
        text = "".join(pieces).strip()
        if text and in_body:
            found.texts.setdefault(name.rpartition("}")[2], text)
        pieces.clear()

    parse_xml(content, start, end, pieces.append)
    return found


def _content(text: str) -> str:
    """Text as XML, without the characters that XML cannot have."""
    allowed = "".join(one for one in text if one >= " " or one in "\t\n")
    return attribute_xml(allowed).replace(">", "&gt;")
