"""Values as text of the study header document: escaped twice, once as a value and once more as XML.

Values hold characters that XML cannot (ESC of ISO 2022, NUL). The format writes these as character references, within a
text in which ``&`` and its kin are entities already, and then writes that text as XML. ``A&B`` becomes
``A&amp;amp;B``, ESC becomes ``&amp;#x1B;``.
"""

import re

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"}
_CHARACTERS = {name: character for character, name in _ENTITIES.items()}
_SPECIAL = re.compile("[&<>\"'\r]|[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WRITTEN = re.compile('[&<"\t\n\r]')
_REFERENCE = re.compile(r"&(?:#x([0-9A-Fa-f]{1,6})|#([0-9]{1,7})|amp|lt|gt|quot|apos);")
_SURROGATES = re.compile("[\ud800-\udfff]")
_LAST_CHARACTER = 0x10FFFF


def value_xml(value: str) -> str:
    """A value as the content of an XML element."""
    return _SPECIAL.sub(_twice, value) if _SPECIAL.search(value) else value


def value_attribute(value: str) -> str:
    """A value as an XML attribute between double quotes, such as ``SourceAETitle``."""
    return value_xml(value).replace("\t", "&#x9;").replace("\n", "&#xA;")


def attribute_xml(text: str) -> str:
    """Text as an XML attribute between double quotes, escaped once, such as a UID."""
    return _WRITTEN.sub(lambda found: _ENTITIES.get(found[0]) or f"&#x{ord(found[0]):X};", text)


def value_of(text: str) -> str:
    """The value that an XML parser's text stands for: the second escaping taken back."""
    if "&" not in text:
        return text
    value = _REFERENCE.sub(_character, text)
    if _SURROGATES.search(value):  # writers that know 16-bit characters only refer to the halves of a pair
        value = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def _twice(found: re.Match[str]) -> str:
    character = found[0]
    if character == "\r":
        return "&#xD;"  # allowed in a value, but a parser would make it a line feed
    return "&amp;" + (_ENTITIES.get(character) or f"&#x{ord(character):X};")[1:]


def _character(found: re.Match[str]) -> str:
    if found[1] or found[2]:
        number = int(found[1], 16) if found[1] else int(found[2])
        return chr(number) if number <= _LAST_CHARACTER else found[0]
    return _CHARACTERS[found[0]]
