"""Which providers' events a subscriber wants: the setting ``SELECTOR``."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from imaging_services.domain.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Selector:
    """Regular expressions on the provider name, each matching the whole name; none of them selects everything."""

    patterns: tuple[re.Pattern[str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Selector":
        """Read comma separated regular expressions; a comma within braces, brackets or after ``\\`` belongs to its
        expression. Raises ``SettingsError`` that names a wrong one."""
        return cls(tuple(_compiled(pattern) for pattern in _split(text)))

    def matches(self, provider: str) -> bool:
        """Whether events of this provider are wanted."""
        return not self.patterns or any(pattern.fullmatch(provider) for pattern in self.patterns)

    def matches_any(self, providers: Iterable[str]) -> bool:
        """Whether one of the providers is wanted; without patterns also when none is named."""
        return not self.patterns or any(self.matches(provider) for provider in providers)


def _split(text: str) -> list[str]:
    """Commas separate, except inside ``{1,3}`` and ``[,]`` and after a backslash."""
    pieces = re.findall(r"(?:\\.|\{[^}]*\}|\[\^?\]?[^\]]*\]|[^,\\]|\\$)+", text, re.DOTALL)
    return [piece.strip() for piece in pieces if piece.strip()]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise SettingsError(f"SELECTOR: {pattern!r} is not a regular expression ({error})") from None
