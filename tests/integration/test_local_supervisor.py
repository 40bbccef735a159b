"""The supervisor with programs that crash, hang and refuse to stop."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from imaging_services.domain.errors import BackendUnavailable, SettingsError
from imaging_services.local.data_folder import DataFolder, State
from imaging_services.local.ports import choose_ports, free_ports
from imaging_services.local.processes import Child, Program, start
from imaging_services.local.supervisor import Stage, Supervisor

SLEEPER = "import time; print('sleeping', flush=True); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


def program(tmp_path: Path, name: str, code: str, **options: object) -> Program:
    log = tmp_path / f"{name}.log"
    defaults = {"start_seconds": 60, "stop_seconds": 30, "ready": lambda: log.exists() and log.stat().st_size > 0}
    return Program(name=name, command=[sys.executable, "-c", code], log_file=log, **{**defaults, **options})


class Watched:
    """A supervisor in a task, with what it told."""

    def __init__(self, *stages: list[Program]) -> None:
        self.told: list[str] = []
        self.pids: list[dict[str, int]] = []
        self.stop = asyncio.Event()
        self.ready = asyncio.Event()
        prepared = [Stage(lambda stage=stage: stage) for stage in stages]
        self.supervisor = Supervisor(prepared, self.pids.append, self.told.append)

    async def __aenter__(self) -> "Watched":
        self.task = asyncio.create_task(self.supervisor.run(self._when_ready, self.stop))
        await asyncio.wait({self.task, asyncio.ensure_future(self.ready.wait())}, return_when="FIRST_COMPLETED")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        await self.task

    async def _when_ready(self) -> None:
        self.ready.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.02)


async def test_a_killed_program_is_started_again_and_its_last_lines_are_told(tmp_path: Path) -> None:
    async with Watched([program(tmp_path, "one", SLEEPER)], [program(tmp_path, "two", SLEEPER)]) as watched:
        first = watched.supervisor.pids
        os.kill(first["two"], signal.SIGKILL)
        await watched.until(lambda: watched.supervisor.pids.get("two") not in (None, first["two"]))
        await watched.until(lambda: any("two runs again" in text for text in watched.told))
        assert watched.supervisor.pids["one"] == first["one"]
        assert watched.told[0].startswith("two was ended by SIGKILL; its last log lines")
        assert "sleeping" in watched.told[0]
        assert watched.pids[-1] == watched.supervisor.pids
    assert watched.supervisor.pids == {}
    assert watched.pids[-1] == {}


async def test_a_program_that_crashes_again_and_again_is_tried_with_growing_delay(tmp_path: Path) -> None:
    once = f"import os; p={str(tmp_path / 'ran')!r}; print('up', flush=True)\n"
    crashing = (
        once + "import time\nif not os.path.exists(p): open(p, 'w').close(); time.sleep(600)\nraise SystemExit(7)"
    )
    async with Watched([program(tmp_path, "one", crashing)]) as watched:
        os.kill(watched.supervisor.pids["one"], signal.SIGKILL)
        await watched.until(lambda: sum("ended with code 7" in text for text in watched.told) >= 2)
    delays = [text.rsplit(" in ", 1)[1] for text in watched.told if "started again in" in text]
    assert delays[:3] == ["0.5 s", "1 s", "2 s"]


async def test_a_program_that_does_not_start_stops_the_rest(tmp_path: Path) -> None:
    good = program(tmp_path, "good", SLEEPER)
    bad = program(tmp_path, "bad", "raise SystemExit('no such setting')", ready=lambda: False)
    async with asyncio.timeout(60):
        watched = Watched([good], [bad])
        task = asyncio.create_task(watched.supervisor.run(watched._when_ready, watched.stop))
        with pytest.raises(BackendUnavailable, match=r"bad ended with code 1.*\n.*no such setting"):
            await task
    assert watched.supervisor.pids == {}
    assert not psutil.pid_exists(watched.pids[0]["good"])


def test_who_gets_on_is_waited_for_however_long_that_takes(tmp_path: Path) -> None:
    looks: list[int] = []

    def steps(pid: int) -> int:
        looks.append(pid)
        return min(len(looks), 4)

    options = {"start_seconds": 0.1, "progress": steps}
    child = start(program(tmp_path, "slow", SLEEPER, ready=lambda: len(looks) > 3, **options))
    assert set(looks) == {child.pid}
    child.kill()
    with pytest.raises(BackendUnavailable, match="stuck is not ready after 0 s"):
        start(program(tmp_path, "stuck", SLEEPER, ready=lambda: False, **options))
    assert len(looks) > 4


async def test_stopping_while_starting(tmp_path: Path) -> None:
    slow = program(tmp_path, "slow", SLEEPER, ready=lambda: False, start_seconds=60)
    watched = Watched([slow])
    task = asyncio.create_task(watched.supervisor.run(watched._when_ready, watched.stop))
    await watched.until(lambda: bool(watched.pids))
    watched.stop.set()
    async with asyncio.timeout(60):
        await task
    assert not psutil.pid_exists(watched.pids[0]["slow"])


async def test_later_stages_stop_first_and_the_deaf_are_killed(tmp_path: Path) -> None:
    notice = (
        "import os, signal, sys, time\n"
        f"def stop(*_):\n    gone = not os.path.exists('/proc/' + open({str(tmp_path / 'pid')!r}).read())\n"
        f"    open({str(tmp_path / 'seen')!r}, 'w').write('gone' if gone else 'there'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, stop); print('up', flush=True); time.sleep(600)"
    )
    async with Watched(
        [program(tmp_path, "first", notice)], [program(tmp_path, "deaf", DEAF, stop_seconds=1)]
    ) as watched:
        (tmp_path / "pid").write_text(str(watched.supervisor.pids["deaf"]))
    assert (tmp_path / "seen").read_text() == "gone"
    assert watched.told == ["deaf did not stop in 1 s and was killed"]


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from imaging_services.local.processes import Program, start\n"
        "log = Path(sys.argv[2]); child = start(Program('x', [sys.executable, '-c', sys.argv[3]], log, log.exists))\n"
        "print(child.pid, flush=True); import time; time.sleep(600)"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path), str(tmp_path / "x.log"), SLEEPER]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    deadline = time.monotonic() + 60
    with contextlib.suppress(psutil.NoSuchProcess):
        while child.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, "the child outlives its parent"
            time.sleep(0.02)


def test_a_start_that_takes_too_long_shows_the_last_lines(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"slow is not ready after 5 s.*\n.*sleeping"):
        start(program(tmp_path, "slow", SLEEPER, ready=lambda: False, start_seconds=5))


def test_a_folder_has_one_user(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    refused = pytest.raises(SettingsError, match=rf"another imaging up \(process {os.getpid()}\) uses")
    with folder.locked(), refused, DataFolder(tmp_path / "data").locked():
        pass
    with folder.locked():
        pass


def test_the_state_is_kept_and_private(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    state = State(ports={"nats": 4222})
    folder.save(state)
    assert folder.load() == state
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(SettingsError, match="damaged"):
        folder.load()


def test_leftovers_are_ended_but_strangers_with_the_same_number_are_not(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    leftover, stranger = (Child(program(tmp_path, name, SLEEPER)) for name in ("leftover", "stranger"))
    folder.remember({"leftover": leftover.pid, "stranger": stranger.pid})
    noted = (tmp_path / "processes.json").read_text()
    created = str(psutil.Process(stranger.pid).create_time())
    (tmp_path / "processes.json").write_text(noted.replace(created, "12345.0"))
    try:
        assert folder.end_leftovers() == ["leftover"]
        assert not psutil.pid_exists(leftover.pid)
        assert stranger.returncode is None
    finally:
        stranger.kill()
        leftover.wait_stopped()


def test_ports_are_kept_while_they_are_free() -> None:
    kept_port, taken_port = free_ports(2)
    kept = {"a": kept_port, "b": taken_port}
    with socket.create_server(("127.0.0.1", taken_port)):
        chosen = choose_ports(["a", "b", "c"], {}, kept)
        assert chosen["a"] == kept_port
        assert len({*chosen.values(), taken_port}) == 4
        with pytest.raises(SettingsError, match=rf"port {taken_port} \(b\) is taken.*--ports auto"):
            choose_ports(["a", "b"], {"b": taken_port}, {})
