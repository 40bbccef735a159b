"""Programs that a package of the system brings: real peers, which no test does without."""

from pathlib import Path

import pytest


def installed(path: str, package: str) -> str:
    """The program's path; where it is missing the test fails and says what to install."""
    if not Path(path).exists():
        pytest.fail(f"{path} is missing: install it, on Debian with `apt-get install {package}`", pytrace=False)
    return path


def dcmtk_program(name: str) -> str:
    """A program of DCMTK; not the one of the same name that pynetdicom puts into the environment."""
    return installed(f"/usr/bin/{name}", "dcmtk")
