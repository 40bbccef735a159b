"""What a process does with memory that it has given back to its allocator."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc, mallopt(3)
_KEPT_BYTES = 32 * 1024 * 1024
_OF_ITS_OWN_BYTES = 4 * 1024 * 1024


def keep_freed_memory() -> None:
    """Keep up to 32 MiB of freed memory for what comes next, and map only blocks of 4 MiB and more by themselves.

    By default glibc gives the memory of an instance back to the kernel as soon as two of them are free, and takes new
    pages, which the kernel has to clear, for the next one: with 525 KB that was a third of the CPU time of a proxy.
    Other C libraries have no such setting and are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _OF_ITS_OWN_BYTES)
