"""Environment files: ``NAME=value`` lines, as Docker's ``--env-file`` and systemd's ``EnvironmentFile`` read them."""

import os
import re
from pathlib import Path

from imaging_services.domain.errors import SettingsError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a file. Empty lines and lines that begin with ``#`` do not count; nothing is expanded; a pair
    of quotes around the whole value is taken off. Raises ``SettingsError`` that names the line."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    variables = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not _NAME.fullmatch(name.strip()):
            raise SettingsError(f"{path} line {number}: write NAME=value")
        variables[name.strip()] = _unquoted(value.strip())
    return variables


def use_env_file(path: Path) -> None:
    """Put the file's variables into the environment; those that are there already win."""
    for name, value in read_env_file(path).items():
        os.environ.setdefault(name, value)


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value
