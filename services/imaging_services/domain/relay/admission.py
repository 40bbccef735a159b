"""Who may open an association with this AE, and under which name (PS3.8 section 9.3.4)."""

from dataclasses import dataclass

from imaging_services.domain.dicom.dimse import (
    CALLED_AE_NOT_RECOGNIZED,
    CALLING_AE_NOT_RECOGNIZED,
    AssociationRequest,
    Rejection,
)


@dataclass(frozen=True, slots=True)
class Admission:
    """``own_titles`` are the titles this AE answers to, unless ``check_called`` is off; an empty
    ``allowed_callers`` lets every calling AE in."""

    own_titles: frozenset[str]
    allowed_callers: frozenset[str] = frozenset()
    check_called: bool = True

    def refusal(self, request: AssociationRequest) -> Rejection | None:
        """Why the request is rejected, or None."""
        if self.check_called and request.called_ae_title not in self.own_titles:
            return CALLED_AE_NOT_RECOGNIZED
        if self.allowed_callers and request.calling_ae_title not in self.allowed_callers:
            return CALLING_AE_NOT_RECOGNIZED
        return None


def titles(text: str) -> frozenset[str]:
    """AE titles separated by commas; blanks around them do not count (PS3.5 table 6.2-1)."""
    return frozenset(title.strip() for title in text.split(",") if title.strip())
