"""Transfer syntaxes (PS3.5 annex A): how a data set is encoded, and whether its pixel data is encapsulated."""

from typing import NamedTuple

from pydicom.uid import UID

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN_PIXELS = "1.2.840.113619.5.2"
JPIP_REFERENCED_DEFLATE = "1.2.840.10008.1.2.4.95"
JPIP_HTJ2K_REFERENCED_DEFLATE = "1.2.840.10008.1.2.4.205"
JPIP_REFERENCED = "1.2.840.10008.1.2.4.94"
JPIP_HTJ2K_REFERENCED = "1.2.840.10008.1.2.4.204"


class Encoding(NamedTuple):
    """How the data set's bytes are to be read."""

    implicit: bool
    little_endian: bool
    deflated: bool = False


IMPLICIT_LITTLE = Encoding(implicit=True, little_endian=True)
EXPLICIT_LITTLE = Encoding(implicit=False, little_endian=True)
EXPLICIT_BIG = Encoding(implicit=False, little_endian=False)
DEFLATED = Encoding(implicit=False, little_endian=True, deflated=True)

_ENCODINGS = {
    IMPLICIT_VR_LITTLE_ENDIAN: IMPLICIT_LITTLE,
    GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN_PIXELS: IMPLICIT_LITTLE,
    EXPLICIT_VR_BIG_ENDIAN: EXPLICIT_BIG,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: DEFLATED,
    JPIP_REFERENCED_DEFLATE: DEFLATED,
    JPIP_HTJ2K_REFERENCED_DEFLATE: DEFLATED,
}
_NATIVE = {
    IMPLICIT_LITTLE: IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_LITTLE: EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_BIG: EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED: DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
}
_NOT_ENCAPSULATED = frozenset(
    {*_NATIVE.values(), *_ENCODINGS, JPIP_REFERENCED, JPIP_HTJ2K_REFERENCED},
)


def encoding_of(transfer_syntax: str) -> Encoding:
    """The encoding of a transfer syntax; every one that is not listed is Explicit VR Little Endian (PS3.5 A.4)."""
    return _ENCODINGS.get(transfer_syntax, EXPLICIT_LITTLE)


def native_transfer_syntax(encoding: Encoding) -> str:
    """The transfer syntax of uncompressed pixel data in this encoding."""
    return _NATIVE[encoding]


def is_encapsulated(transfer_syntax: str) -> bool:
    """True when pixel data comes as fragments of items (PS3.5 A.4)."""
    return transfer_syntax not in _NOT_ENCAPSULATED


def is_deflated(transfer_syntax: str) -> bool:
    """True when the whole data set is deflated (PS3.5 A.5)."""
    return encoding_of(transfer_syntax).deflated


def name_of(transfer_syntax: str) -> str:
    """The Standard's name, or the UID itself when it is private or unknown."""
    return UID(transfer_syntax).name
