"""Memory that is used again and again is not fetched from the kernel each time."""

import subprocess
import sys

_WORK = """
import resource
from imaging_services.adapters.processes.heap import keep_freed_memory
{prepare}
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    for _ in range(20): [b"x" * 1_000_000 for _ in range(3)]
work()
before = faults()
work()
print(faults() - before)
"""


def page_faults(prepare: str) -> int:
    ended = subprocess.run([sys.executable, "-c", _WORK.format(prepare=prepare)], check=True, capture_output=True)
    return int(ended.stdout)


def test_freed_memory_is_used_again() -> None:
    assert 50 * page_faults("keep_freed_memory()") < page_faults("")
