"""A report for programs: one JSON object a line, written as it comes."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from imaging_services.domain.errors import SettingsError


class JsonLines:
    """The file at ``path``, written anew; without a path nothing is written. Use as a context."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def write(self, document: Mapping[str, object]) -> None:
        """One line."""
        if self._file is not None:
            self._file.write(json.dumps(document, default=str) + "\n")
            self._file.flush()

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                self._file = self._path.open("w", encoding="utf-8")
            except OSError as error:
                raise SettingsError(f"--json {self._path}: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
