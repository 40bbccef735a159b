"""``imaging stream``: open a study by its headers, and fetch its frames one by one."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from imaging_services.adapters.http.client import HttpOptions, HttpTarget
from imaging_services.cli.stream_output import FrameFolder
from imaging_services.domain.dicom.uids import is_uid
from imaging_services.domain.errors import SettingsError
from imaging_services.domain.streaming.client import StreamingAddress, StreamingClient
from imaging_services.domain.streaming.frame_loader import FrameLoader
from imaging_services.domain.streaming.study_reader import StreamedStudy

SAMPLES = 4
"""Frames far apart that are asked for before the rest comes, as a viewer does when somebody jumps."""


def stream(
    study: Annotated[str, typer.Argument(metavar="STUDY_UID", help="Study Instance UID.")],
    url: Annotated[str, typer.Option("--from", metavar="URL", help="As http://HOST:PORT/wado/PARTITION.")],
    headers: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Header streaming service; default: on the same host and port.", show_default=False
        ),
    ] = None,
    connections: Annotated[int, typer.Option(min=1, max=16, help="Connections at a time.")] = 4,
    output: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder for the frames, as they come.", show_default=False),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Certificate authorities to trust besides the system's."),
    ] = None,
) -> None:
    """Open a study by header and frame streaming, and say how long each step took."""
    if not is_uid(study):
        raise SettingsError(f"{study[:80]!r} is not a UID")
    address = StreamingAddress.of(url, headers)
    options = HttpOptions(max_connections=connections + 1, ca_file=ca_file, ca_setting="--ca-file")
    asyncio.run(_Session(address, options, connections, output).run(study))


class _Session:
    """One study, opened, looked at in a few places, and fetched to the end."""

    def __init__(self, address: StreamingAddress, options: HttpOptions, connections: int, output: Path | None) -> None:
        self._address, self._options, self._connections = address, options, connections
        self._folder = FrameFolder(output) if output else None
        self._console = Console(highlight=False, soft_wrap=True)
        self._began = time.perf_counter()

    async def run(self, study_instance_uid: str) -> None:
        async with HttpTarget(self._address.images, self._options) as http:
            client = StreamingClient(http, self._address)
            self._began = time.perf_counter()
            study = await self._open(client, study_instance_uid)
            async with FrameLoader(client, study, connections=self._connections) as frames:
                if frames.positions:
                    await self._look(frames)
                    await self._fetch(frames)

    async def _open(self, client: StreamingClient, study_instance_uid: str) -> StreamedStudy:
        columns = (TextColumn("headers"), DownloadColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task("headers", total=None)
            study = await client.open_study(study_instance_uid, lambda count: progress.advance(task, count))
            size = int(progress.tasks[0].completed)
        series = len({one.series_instance_uid for one in study.instances})
        frames = sum(one.frames for one in study.instances)
        self._say(
            f"headers of {len(study.instances)} instances in {series} series, {frames} frames",
            f"{self._seconds():.3f} s, {size / 1024:.0f} KiB",
        )
        return study

    async def _look(self, frames: FrameLoader) -> None:
        """The first image, then some that nobody could have foreseen."""
        first = await frames.get(0)
        self._say(f"first image, {len(first.content)} bytes", f"{self._seconds():.3f} s")
        count = len(frames.positions)
        places = sorted({count * part // SAMPLES - 1 for part in range(1, SAMPLES + 1)} - {-1, 0}, reverse=True)
        for position in places:
            asked = time.perf_counter()
            await frames.get(position)
            waited = time.perf_counter() - asked
            self._say(f"image {position + 1} of {count}", f"{waited:.3f} s after it was asked for")

    async def _fetch(self, frames: FrameLoader) -> None:
        size = 0
        columns = (TextColumn("frames"), BarColumn(), MofNCompleteColumn(), DownloadColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task("frames", total=len(frames.positions))
            for position in range(len(frames.positions)):
                frame = await frames.get(position)
                size += len(frame.content)
                if self._folder is not None:
                    await asyncio.to_thread(self._folder.write, position, frame)
                progress.advance(task)
        seconds = self._seconds()
        self._say(f"all {len(frames.positions)} frames", f"{seconds:.3f} s, {size / 1024**2 / seconds:.1f} MiB/s")

    def _seconds(self) -> float:
        return time.perf_counter() - self._began

    def _say(self, what: str, how_long: str) -> None:
        self._console.print(f"{what:<58} {how_long}", markup=False)
