"""Reading XML that strangers sent: no document type, so no entities; bounded depth."""

from collections.abc import Callable
from typing import NoReturn
from xml.parsers import expat

from imaging_services.domain.errors import InvalidInput

MAX_DEPTH = 200

Start = Callable[[str, dict[str, str]], None]


def parse_xml(content: bytes, start: Start, end: Callable[[str], None], text: Callable[[str], None]) -> None:
    """Call back for each element and text; names are ``{namespace}name``, or ``name`` without a namespace.

    Raises ``InvalidInput`` when it is not well-formed, has a document type, or is nested deeper than 200.
    """
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    depth = 0

    def opened(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise InvalidInput(f"the XML is nested deeper than {MAX_DEPTH}")
        start(_braced(name), attributes)

    def closed(name: str) -> None:
        nonlocal depth
        depth -= 1
        end(_braced(name))

    parser.StartElementHandler = opened
    parser.EndElementHandler = closed
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # the latter two: of the encoding that it declares
        raise InvalidInput(f"the XML is not well-formed: {error}") from None


def _braced(name: str) -> str:
    return "{" + name if "}" in name else name


def _refuse(*_declaration: object) -> NoReturn:
    raise InvalidInput("the XML has a document type declaration, which is not accepted")
