"""Child processes: started with a log file, watched, stopped; none outlives its parent."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from imaging_services.domain.errors import BackendUnavailable

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_LOG_LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Program:
    """What to run and how to see that it works.

    ``ready`` is asked again and again, must return within two seconds and must not raise.
    ``parent_death_signal`` is what the kernel sends when the parent is killed (Linux). All end at once then, so
    nobody could drain into anybody: what was acknowledged is safe without that.
    Without a ``log_file`` its output goes where ours goes.
    """

    name: str
    command: list[str]
    log_file: Path | None
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 20
    start_seconds: float = 60
    """Until it is ready; or without getting on, where ``progress`` tells."""
    progress: Callable[[int], object] | None = None
    """Of its process id: something that changes as long as it gets on with what it does before it is ready."""
    parent_death_signal: signal.Signals = signal.SIGKILL


class Child:
    """One running instance of a program."""

    def __init__(self, program: Program) -> None:
        """Start it. Must be called from the thread that lives as long as the child may: the kernel sends the
        parent death signal when the starting *thread* ends."""
        self.program = program
        self._stopping = False
        if program.log_file is None:
            self._process = self._start(None)
            return
        program.log_file.parent.mkdir(parents=True, exist_ok=True)
        _rotate(program.log_file)
        with program.log_file.open("ab") as log:
            self._log_start = log.tell()
            self._process = self._start(log)

    def _start(self, log: BinaryIO | None) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # noqa: S603 - our own programs, no shell
            self.program.command,
            env={**os.environ, **self.program.environment},
            cwd=self.program.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT if log else None,
            start_new_session=True,  # Ctrl-C reaches the supervisor only, which stops children in order
            preexec_fn=_die_with_parent(self.program.parent_death_signal, os.getpid()),
        )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    @property
    def stopping(self) -> bool:
        """True once ``request_stop`` was called."""
        return self._stopping

    def last_lines(self, count: int = 15) -> list[str]:
        """What it wrote last since this start; nothing without a log file."""
        if self.program.log_file is None:
            return []
        with self.program.log_file.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(min(self._log_start, end), end - 64 * 1024))
            return log.read().decode("utf-8", "replace").splitlines()[-count:]

    def wait(self) -> None:
        """Block until it ended."""
        self._process.wait()

    def wait_ready(self) -> None:
        """Block until the program answers. Raises ``BackendUnavailable`` with its last log lines when it ended or
        did not answer within ``start_seconds``."""
        deadline, so_far = time.monotonic() + self.program.start_seconds, self._progress()
        while not self.program.ready():
            if self._stopping:
                raise BackendUnavailable(f"{self.program.name} was stopped before it was ready")
            if self.returncode is not None:
                raise BackendUnavailable(self.epitaph())
            if time.monotonic() > deadline:
                if (now := self._progress()) != so_far:
                    deadline, so_far = time.monotonic() + self.program.start_seconds, now
                    continue
                raise BackendUnavailable(self._account(f"is not ready after {self.program.start_seconds:.0f} s"))
            time.sleep(0.05)

    def _progress(self) -> object:
        return self.program.progress(self.pid) if self.program.progress else None

    def epitaph(self) -> str:
        """How it ended, with its last log lines."""
        code = self.returncode
        how = (
            f"was ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with code {code}"
        )
        return self._account(how)

    def request_stop(self) -> None:
        """Ask it to stop; returns at once."""
        self._stopping = True
        if self.returncode is None:
            self._process.send_signal(self.program.stop_signal)

    def wait_stopped(self) -> bool:
        """Block until it ended, at most ``stop_seconds``, then kill it. True when it stopped by itself."""
        try:
            self._process.wait(self.program.stop_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        return True

    def stop(self) -> bool:
        """Ask, wait, and kill if need be. True when it stopped by itself."""
        self.request_stop()
        return self.wait_stopped()

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._stopping = True
        self._process.kill()
        self._process.wait()

    def _account(self, what: str) -> str:
        if self.program.log_file is None:
            return f"{self.program.name} {what}"
        lines = "".join(f"\n    {line}" for line in self.last_lines())
        return f"{self.program.name} {what}; its last log lines ({self.program.log_file}):{lines or ' none'}"


def start(program: Program) -> Child:
    """Start it and block until it is ready; stops it again when it does not become so."""
    child = Child(program)
    try:
        child.wait_ready()
    except BaseException:
        child.stop()
        raise
    return child


def _die_with_parent(signum: signal.Signals, parent: int) -> Callable[[], None]:
    def in_child() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
            if os.getppid() != parent:  # it died before the call above
                os._exit(1)

    return in_child


def _rotate(log_file: Path) -> None:
    """Keep one older log file, so that a folder used for years does not fill the disk."""
    if log_file.exists() and log_file.stat().st_size > _LOG_LIMIT_BYTES:
        log_file.replace(log_file.with_suffix(".log.1"))
