"""The PostgreSQL server of the local stack, on TCP with a password.

PostgreSQL refuses to run as root. Where root starts the stack, the server runs as the user ``postgres``, or
``nobody`` where there is none, and owns its own data directory. It keeps the one capability of passing through
directories that are closed to that user, so a repository below ``/root`` works and no other directory's rights change.
"""

import os
import pwd
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from imaging_services.domain.errors import BackendUnavailable, SettingsError
from imaging_services.local.bundled import POSTGRES_BINARIES, POSTGRES_VERSION, postgres_program
from imaging_services.local.ports import LOOPBACK
from imaging_services.local.processes import Program

_COMMAND_SECONDS = 60


@dataclass(frozen=True)
class PostgresServer:
    """Where it keeps its data, where it listens and who may enter."""

    directory: Path
    port: int
    user: str
    password: str
    host: str = LOOPBACK
    """Where it listens; must include the loopback address."""

    @property
    def data(self) -> Path:
        """PostgreSQL's own data directory."""
        return self.directory / "data"

    @property
    def _access_file(self) -> Path:
        """Who may come from where: with the password, from wherever it listens."""
        return self.directory / "access.conf"

    def program(self) -> Program:
        """Create the cluster if there is none and say how to run it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if not (self.data / "PG_VERSION").exists():
            self._create_cluster()
        self._check_version()
        _forget_dead_postmaster(self.data)
        self._access_file.write_text("host all all all scram-sha-256\n")
        settings = [option for key, value in self._settings().items() for option in ("-c", f"{key}={value}")]
        return Program(
            name="postgres",
            command=[*_unprivileged(), str(postgres_program("postgres")), "-D", str(self.data), *settings],
            log_file=self.directory / "postgres.log",
            ready=self.answers,
            stop_signal=signal.SIGINT,  # fast shutdown: ends sessions, rolls back, writes a checkpoint
            parent_death_signal=signal.SIGINT,
        )

    def answers(self) -> bool:
        """True when it accepts connections."""
        check = [
            str(postgres_program("pg_isready")),
            "-q",
            "-h",
            LOOPBACK,
            "-p",
            str(self.port),
            "-t",
            "1",
            "-d",
            "postgres",
        ]
        return subprocess.run(check, check=False, capture_output=True, timeout=5).returncode == 0  # noqa: S603

    def create_database(self, name: str) -> None:
        """Create a database unless it exists; the server must be running."""
        exists = self._sql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'")  # noqa: S608 - our own name
        if not exists:
            self._sql(f'CREATE DATABASE "{name}"')

    def _sql(self, statement: str) -> str:
        address = ["-h", LOOPBACK, "-p", str(self.port), "-U", self.user, "-d", "postgres"]
        return _run([str(postgres_program("psql")), *address, "-XAtqc", statement], PGPASSWORD=self.password).strip()

    def _create_cluster(self) -> None:
        """Made beside its final place and moved there when complete: a broken start leaves nothing half made."""
        unfinished = self.directory / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password_file = self.directory / "password.new"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        try:
            if (owner := _server_user()) is not None:
                os.chown(unfinished, owner.pw_uid, owner.pw_gid)
                os.chown(password_file, owner.pw_uid, owner.pw_gid)
            options = ["-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-instructions"]
            who = ["-U", self.user, f"--pwfile={password_file}"]
            _run([*_unprivileged(), str(postgres_program("initdb")), "-D", str(unfinished), *who, *options])
        finally:
            password_file.unlink()
        unfinished.rename(self.data)

    def _check_version(self) -> None:
        version = (self.data / "PG_VERSION").read_text().strip()
        if version != str(POSTGRES_VERSION):
            raise SettingsError(
                f"{self.data} was written by PostgreSQL {version}, this program brings {POSTGRES_VERSION}: "
                "choose another --data-dir, or move the data with pg_dump"
            )

    def _settings(self) -> dict[str, str]:
        return {
            "listen_addresses": self.host,
            "hba_file": str(self._access_file),
            "port": str(self.port),
            "unix_socket_directories": "",
            "shared_buffers": "64MB",
            "max_connections": "150",
            "max_wal_size": "512MB",
            "io_method": "sync",  # the workers of PostgreSQL 18 cost three processes and gain nothing here
            "autovacuum_naptime": "30s",
            "jit": "off",
            "log_timezone": "UTC",
            "timezone": "UTC",
        }


def _server_user() -> pwd.struct_passwd | None:
    """The user to run as where we are root; None where we are not."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise SettingsError("PostgreSQL refuses to run as root and there is no user 'nobody': run imaging as another user")


def _unprivileged() -> list[str]:
    """The command prefix that changes the user; empty where we are not root."""
    user = _server_user()
    if user is None:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise SettingsError("PostgreSQL refuses to run as root: install 'setpriv' (util-linux), or run as another user")
    identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    # The parent death signal survives only if setpriv sets it again after the change of user.
    rights = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--pdeathsig=INT"]
    return [setpriv, *identity, *rights, "--"]


def _forget_dead_postmaster(data: Path) -> None:
    """PostgreSQL refuses to start when the process id in its lock file is in use, even by another program."""
    lock_file = data / "postmaster.pid"
    try:
        pid = int(lock_file.read_text().splitlines()[0])
        started_by_us = psutil.Process(pid).name().startswith("postgres")
    except (FileNotFoundError, IndexError, ValueError):
        return
    except psutil.NoSuchProcess:
        started_by_us = False
    if not started_by_us:
        lock_file.unlink(missing_ok=True)


def _run(command: list[str], **environment: str) -> str:
    """Run one of PostgreSQL's own tools. Raises ``BackendUnavailable`` with what it said."""
    name = next(Path(part).name for part in command if part.startswith(str(POSTGRES_BINARIES)))
    try:
        done = subprocess.run(  # noqa: S603 - our own programs, no shell
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C", **environment},
        )
    except subprocess.TimeoutExpired as error:
        raise BackendUnavailable(f"{name} did not end within {_COMMAND_SECONDS} s") from error
    if done.returncode:
        raise BackendUnavailable(f"{name} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
