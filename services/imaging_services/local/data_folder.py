"""The folder that holds everything of a local stack: data, generated credentials, ports, logs."""

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from imaging_services.domain.errors import SettingsError

_LEFTOVER_SECONDS = 20


@dataclass
class State:
    """What a stack remembers between runs."""

    postgres_password: str = field(default_factory=lambda: secrets.token_hex(16))
    s3_access_key_id: str = field(default_factory=lambda: "IMAGING" + secrets.token_hex(6).upper())
    s3_secret_access_key: str = field(default_factory=lambda: secrets.token_hex(20))
    ports: dict[str, int] = field(default_factory=dict)
    name: str = "local"


class DataFolder:
    """One data folder; at most one ``imaging up`` uses it at a time."""

    def __init__(self, path: Path) -> None:
        """``path`` is made absolute; nothing is touched yet."""
        self.path = path.expanduser().resolve()

    @property
    def logs(self) -> Path:
        """Where the services' log files are."""
        return self.path / "logs"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and own it for the block. Raises ``SettingsError`` when somebody else does.

        The kernel gives the lock back when its holder ends in whatever way, so there is no stale lock.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise SettingsError(f"the data folder {self.path} cannot be written: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = (self.path / "lock").read_text().strip() or "unknown"
                raise SettingsError(
                    f"another imaging up (process {holder}) uses {self.path}: stop it, or choose another --data-dir"
                ) from error
            os.truncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            yield
        finally:
            os.close(descriptor)

    def load(self) -> State:
        """What the last run kept, or a new state with fresh credentials."""
        try:
            return State(**json.loads((self.path / "state.json").read_text()))
        except FileNotFoundError:
            return State()
        except (ValueError, TypeError) as error:
            raise SettingsError(f"{self.path / 'state.json'} is damaged ({error}): restore it from a backup") from error

    def save(self, state: State) -> None:
        """Keep ``state`` for the next run."""
        write_private(self.path / "state.json", json.dumps(asdict(state), indent=2))

    def remember(self, pids: Mapping[str, int]) -> None:
        """Note the running children, so that a later run can end what a crash left behind."""
        known: dict[str, Any] = {}
        for name, pid in pids.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                known[name] = [pid, psutil.Process(pid).create_time()]
        write_private(self.path / "processes.json", json.dumps(known))

    def end_leftovers(self) -> list[str]:
        """End children of an earlier run that still live; returns their names. Blocks for at most 20 seconds."""
        try:
            known = json.loads((self.path / "processes.json").read_text())
        except (FileNotFoundError, ValueError):
            return []
        living = {name: process for name, note in known.items() if (process := _same_process(*note)) is not None}
        for process in living.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, stubborn = psutil.wait_procs(living.values(), timeout=_LEFTOVER_SECONDS)
        for process in stubborn:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(stubborn, timeout=_LEFTOVER_SECONDS)
        return sorted(living)

    def write_keys(self, name: str, keys: Mapping[str, str]) -> Path:
        """A directory with one file a key, as Kubernetes mounts a ConfigMap or Secret."""
        directory = self.path / "config" / name
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        for old in set(directory.iterdir()) - {directory / key for key in keys}:
            old.unlink()
        for key, value in keys.items():
            write_private(directory / key, value)
        return directory


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner can read it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    unfinished.replace(path)


def _same_process(pid: int, create_time: float) -> psutil.Process | None:
    """The process that was noted, not another one that got its number since."""
    try:
        process = psutil.Process(pid)
        alive = process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - create_time) < 1
    except psutil.NoSuchProcess:
        return None
    return process if alive else None
