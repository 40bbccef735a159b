"""Which presentation contexts to accept (PS3.8 section 9.3.3.2), and which to propose."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from imaging_services.adapters.dimse.associate import (
    ABSTRACT_SYNTAX_NOT_SUPPORTED,
    TRANSFER_SYNTAXES_NOT_SUPPORTED,
)
from imaging_services.adapters.dimse.capability_lists import load_uid_lists
from imaging_services.domain.dicom.dimse import VERIFICATION, Negotiated, ProposedContext
from imaging_services.domain.errors import InvalidInput

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
MAX_CONTEXTS = 128

_DICOM_ROOT = "1.2.840.10008."
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
_VERIFICATION_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
_IDENTIFIER_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a service accepts. ``transfer_syntaxes`` are in order of preference and go with every storage class;
    ``accept_unknown`` adds private SOP classes and storage classes that are not listed; ``query_classes`` (query,
    retrieve and other classes whose identifiers are small) go with ``query_syntaxes``."""

    sop_classes: frozenset[str]
    transfer_syntaxes: tuple[str, ...]
    accept_unknown: bool = False
    query_classes: frozenset[str] = frozenset()
    query_syntaxes: tuple[str, ...] = _IDENTIFIER_SYNTAXES


def load_capabilities(
    directory: Path | None,
    *,
    accept_unknown: bool = False,
    query_classes: Iterable[str] = (),
    query_syntaxes: tuple[str, ...] = _IDENTIFIER_SYNTAXES,
) -> Capabilities:
    """Capabilities of the files ``IMAGE_CUIDS`` and ``IMAGE_TSUIDS`` in a directory, or the defaults.

    Explicit VR Little Endian is preferred to everything, as it loses no VR, then the order of the file. Raises
    ``SettingsError``.
    """
    sop_classes, transfer_syntaxes = load_uid_lists(directory)
    preferred = sorted(transfer_syntaxes, key=lambda uid: uid != EXPLICIT_VR_LITTLE_ENDIAN)
    return Capabilities(
        frozenset(sop_classes), tuple(preferred), accept_unknown, frozenset(query_classes), query_syntaxes
    )


def choose_contexts(proposed: Iterable[ProposedContext], capabilities: Capabilities) -> Negotiated:
    """Accept each context whose abstract syntax is among the capabilities with the most preferred of its transfer
    syntaxes; the others are refused with the reason that applies."""
    accepted: dict[int, str] = {}
    refusals: dict[int, int] = {}
    for context in proposed:
        syntaxes = _syntaxes_of(context, capabilities)
        chosen = next((uid for uid in syntaxes if uid in context.transfer_syntaxes), None)
        if chosen is not None:
            accepted[context.context_id] = chosen
        else:
            refusals[context.context_id] = (
                TRANSFER_SYNTAXES_NOT_SUPPORTED if syntaxes else ABSTRACT_SYNTAX_NOT_SUPPORTED
            )
    return Negotiated(accepted, refusals)


def propose(pairs: Sequence[tuple[str, Sequence[str]]]) -> tuple[ProposedContext, ...]:
    """Contexts numbered 1, 3, 5, ... for (abstract syntax, transfer syntaxes). Raises ``InvalidInput`` when there
    are more than the 128 that ids allow."""
    if len(pairs) > MAX_CONTEXTS:
        raise InvalidInput(f"{len(pairs)} presentation contexts, at most {MAX_CONTEXTS} fit in an association")
    return tuple(
        ProposedContext(2 * index + 1, abstract, tuple(syntaxes)) for index, (abstract, syntaxes) in enumerate(pairs)
    )


def _syntaxes_of(context: ProposedContext, capabilities: Capabilities) -> tuple[str, ...]:
    abstract_syntax = context.abstract_syntax
    if abstract_syntax == VERIFICATION:
        return _VERIFICATION_SYNTAXES
    if abstract_syntax in capabilities.query_classes:
        return capabilities.query_syntaxes
    if abstract_syntax in capabilities.sop_classes:
        return capabilities.transfer_syntaxes
    if not capabilities.sop_classes.isdisjoint(context.related_general):
        return capabilities.transfer_syntaxes  # a storage class that we do not know, but a kind of one that we take
    if capabilities.accept_unknown and _may_be_storage(abstract_syntax):
        return capabilities.transfer_syntaxes
    return ()


def _may_be_storage(abstract_syntax: str) -> bool:
    # UIDs of the Standard outside the storage branch are other services; a private UID does not tell
    return abstract_syntax.startswith(_STORAGE_ROOT) or not abstract_syntax.startswith(_DICOM_ROOT)
