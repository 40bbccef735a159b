"""The parent of several workers, with workers that only answer it."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from imaging_services import workers
from imaging_services.adapters.processes.metrics import merged

# Says its process id, then answers; exits as the third line says.
WORKER = """
import asyncio, os, pathlib, sys
from imaging_services.adapters.processes import channel
me = channel.inherited()
{}
pathlib.Path(os.environ["FOLDER"], str(me.number)).write_text(str(os.getpid()))
answers = {{channel.STATE: lambda: channel.READY, channel.METRICS: lambda: b"# TYPE a gauge\\na 1.0\\n"}}
asyncio.run(channel.answer(me.channel, answers))
"""


def a_crew(folder: Path, line: str = "", count: int = 2) -> workers.Crew:
    command = [sys.executable, "-c", WORKER.format(line)]
    return workers.Crew(command, {"FOLDER": str(folder)}, count, stop_seconds=30)


async def eventually_ready(crew: workers.Crew) -> None:
    async with asyncio.timeout(60):
        while not await crew.ready():
            await asyncio.sleep(0.02)


async def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_WATCH_SECONDS", 0.2)
    crew, stop = a_crew(tmp_path), asyncio.Event()
    running = asyncio.create_task(crew.run(stop))
    await eventually_ready(crew)
    monkeypatch.setattr(workers, "_SILENT_SECONDS", 3.0)
    hung, other = (int((tmp_path / name).read_text()) for name in ("1", "2"))
    os.kill(hung, signal.SIGSTOP)
    async with asyncio.timeout(60):
        while (tmp_path / "1").read_text() in ("", str(hung)):
            await asyncio.sleep(0.05)
    monkeypatch.setattr(workers, "_SILENT_SECONDS", 60.0)
    await eventually_ready(crew)
    assert int((tmp_path / "2").read_text()) == other
    page = (await crew.metrics()).decode()
    assert 'a{worker="1"} 1.0' in page
    assert 'a{worker="2"} 1.0' in page
    assert 'imaging_worker_restarts_total{worker="parent"}' in page
    stop.set()
    assert await asyncio.wait_for(running, 60) == 0
    assert not await crew.ready()


async def test_without_a_worker_that_can_start_there_is_no_service(tmp_path: Path) -> None:
    crew = a_crew(tmp_path, "sys.exit(3)")
    assert await asyncio.wait_for(crew.run(asyncio.Event()), 60) == 3


async def test_when_one_of_several_cannot_start_the_others_end_too(tmp_path: Path) -> None:
    crew = a_crew(tmp_path, "if me.number == 2: sys.exit(4)")
    assert await asyncio.wait_for(crew.run(asyncio.Event()), 60) == 4
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "1").read_text()), 0)


async def test_told_to_stop_before_it_is_ready_a_crew_ends(tmp_path: Path) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(a_crew(tmp_path, "import time; time.sleep(600)").run(stop))
    await asyncio.sleep(0)
    stop.set()
    assert await asyncio.wait_for(running, 60) == 0


def test_metrics_keep_their_types_labels_and_buckets() -> None:
    page = (
        '# HELP a_total Things\n# TYPE a_total counter\na_total{kind="x"} 2.0\n'
        '# HELP b Seconds\n# TYPE b histogram\nb_bucket{le="1.0"} 1.0\nb_bucket{le="+Inf"} 2.0\n'
        "b_count 2.0\nb_sum 3.5\n"
    )
    together = merged({"1": page.encode(), "2": page.encode()}).decode()
    for worker in ("1", "2"):
        assert f'a_total{{kind="x",worker="{worker}"}} 2.0' in together
        assert f'b_bucket{{le="+Inf",worker="{worker}"}} 2.0' in together
    assert together.count("# TYPE a_total counter") == 1
    assert together.count("# TYPE b histogram") == 1
