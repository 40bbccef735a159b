"""DCMTK's programs as peers."""

import asyncio
import os
import subprocess
from pathlib import Path

import pydicom

from support.instances import part10
from support.peers import dcmtk_program

ENVIRONMENT = os.environ | {"TCP_NODELAY": "1"}


async def dcmtk(program: str, *arguments: str, title: str, calling: str = "MODALITY") -> tuple[int, str]:
    """Exit code and output of a DCMTK program calling ``title``."""
    process = await asyncio.create_subprocess_exec(
        dcmtk_program(program),
        *("-aet", calling, "-aec", title),
        *arguments,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, output.decode(errors="replace")


def written(path: Path, dataset: pydicom.Dataset) -> Path:
    """The data set as a Part 10 file."""
    path.write_bytes(part10(dataset))
    return path
