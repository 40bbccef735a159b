"""Disks that are small and become full."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(folder: Path, room: int) -> Iterator[Path]:
    """A file system of its own for the folder, of so many bytes; needs root."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(folder)], check=True, timeout=20)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=20)


def fill(descriptor: int, folder: Path) -> None:
    """Write until the folder's file system has no room for another page."""
    for size in (1 << 20, 64 << 10, 4096):
        try:
            while shutil.disk_usage(folder).free >= size:
                os.write(descriptor, bytes(size))
        except OSError:
            continue
