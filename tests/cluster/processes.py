"""Long-running programs of a cluster, each known by its process id and start time, so that a reused id is never hit."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster.errors import ClusterError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)


def start_time(pid: int) -> int | None:
    """When the process began, in clock ticks since boot; None when it is gone or only its exit code is left."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])  # proc(5): state is field 3, starttime field 22


class Processes:
    """The programs of one cluster; ``folder`` holds a pid file and a log file of each.

    ``tied``: they end when this process ends, however it ends. Untied ones are found again by the next who looks.
    """

    def __init__(self, folder: Path, *, tied: bool) -> None:
        self._folder = folder
        self._tied = tied
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, name: str) -> Path:
        """Its log file."""
        return self._folder / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """Its process id while it runs."""
        try:
            pid, started = (int(word) for word in (self._folder / f"{name}.pid").read_text().split())
        except FileNotFoundError:
            return None
        return pid if start_time(pid) == started else None

    def start(self, name: str, *command: str | Path) -> None:
        """Start it unless it runs. Call it from the main thread: a tied program ends with the thread."""
        if self.pid(name):
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            child = subprocess.Popen(
                [str(word) for word in command],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent(os.getpid()) if self._tied else None,
            )
        self._children[name] = child
        (self._folder / f"{name}.pid").write_text(f"{child.pid} {start_time(child.pid)}")

    def stop(self, name: str, seconds: float = 15) -> None:
        """Ask it to end, wait, then kill it."""
        if pid := self.pid(name):
            os.kill(pid, signal.SIGTERM)
            if not self._gone(name, seconds):
                os.kill(pid, signal.SIGKILL)
                self._gone(name, seconds)
        self._forget(name)

    def kill(self, name: str) -> None:
        """End it without asking."""
        if pid := self.pid(name):
            os.kill(pid, signal.SIGKILL)
            self._gone(name, 15)
        self._forget(name)

    def wait_for(self, name: str, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Until the condition holds; the program's last words when it ended, or did not become ready."""
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.pid(name):
                raise ClusterError(f"{name} ended: {self._last_words(name)}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{name} is not ready after {seconds:.0f} s: {self._last_words(name)}")
            time.sleep(0.1)

    def stop_all(self, names: Sequence[str]) -> None:
        """Stop these, in this order."""
        for name in names:
            self.stop(name)

    def _gone(self, name: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.pid(name):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _forget(self, name: str) -> None:
        (self._folder / f"{name}.pid").unlink(missing_ok=True)
        if child := self._children.pop(name, None):
            child.wait(15)

    def _last_words(self, name: str) -> str:
        lines = self.log(name).read_text(errors="replace").splitlines()[-5:]
        return "\n".join([f"see {self.log(name)}", *lines])


def _die_with_parent(parent: int) -> Callable[[], None]:
    def in_child() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)

    return in_child
