"""``imaging rebuild``: the manifest of a storage space from its objects alone."""

from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from imaging_services.adapters.files.listing import sorted_listing
from imaging_services.adapters.files.spool import FileSpools
from imaging_services.adapters.postgres.migrate import migrate
from imaging_services.adapters.postgres.pool import open_pool
from imaging_services.adapters.postgres.rebuild import PostgresRebuild
from imaging_services.cli.json_lines import JsonLines
from imaging_services.cli.meter import Meter
from imaging_services.cli.space import EnvFile, JsonFile, database_of, load_space, open_target_space, provenance_of
from imaging_services.cli.target import DataDir, TargetSettings
from imaging_services.domain.audit.rebuild import Progress, Rebuild

_SHOWN = 20
_MOMENT = "%Y-%m-%dT%H:%M:%S"
FIRST_REVISION = 1000


def rebuild(
    data_dir: DataDir = None,
    env_file: EnvFile = None,
    announce: Annotated[
        bool, typer.Option("--announce", help="Publish every instance and study: subscribers see them again.")
    ] = False,
    first_revision: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Studies' revisions begin here: above those that subscribers have seen."),
    ] = FIRST_REVISION,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read the headers, record nothing.")] = False,
    since: Annotated[
        datetime | None,
        typer.Option(
            "--from",
            formats=[_MOMENT],
            help="Go on: objects written at this moment (UTC) or later.",
            show_default=False,
        ),
    ] = None,
    go_on: Annotated[
        bool,
        typer.Option(
            "--go-on",
            help="Also when the provider has instances: other versions of them, and what was deleted, stay out.",
        ),
    ] = False,
    at_once: Annotated[int, typer.Option(min=1, max=256, metavar="N", help="Headers read at once.")] = 32,
    json_file: JsonFile = None,
) -> None:
    """Make the manifest of a storage space anew, from its objects alone.

    For a database that is lost. One that holds instances of the provider is refused, unless a rebuild that broke off
    has recorded them. Exits with 1 when objects could not be recorded.
    """
    settings = load_space(data_dir, env_file)
    console = Console(highlight=False, soft_wrap=True)
    with JsonLines(json_file) as lines:
        work = _Work(settings, console, lines, since.replace(tzinfo=UTC) if since is not None else None, at_once)
        going_on = go_on or since is not None
        progress = uvloop.run(
            work.run(announce=announce, first_revision=first_revision, dry_run=dry_run, go_on=going_on)
        )
    if progress.failed:
        raise typer.Exit(1)


class _Work:
    def __init__(
        self, settings: TargetSettings, console: Console, lines: JsonLines, since: datetime | None, at_once: int
    ) -> None:
        self._settings, self._console, self._lines = settings, console, lines
        self._since, self._at_once = since, at_once
        self._shown = 0

    async def run(self, *, announce: bool, first_revision: int, dry_run: bool, go_on: bool) -> Progress:
        """Rebuild, and tell how far it is. Raises what the space and the database raise."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            space = await stack.enter_async_context(open_target_space(settings))
            manifest = None
            if not dry_run:
                pool = await stack.enter_async_context(open_pool(database_of(settings, "imaging-rebuild")))
                await migrate(pool)
                manifest = PostgresRebuild(
                    pool, settings.EVENT_SOURCE, announce=announce, first_revision=first_revision
                )
                await manifest.begin(settings.PROVIDER_NAME, go_on=go_on)
            meter = stack.enter_context(Meter(self._console, "rebuilding", 0))
            work = Rebuild(
                space,
                await stack.enter_async_context(sorted_listing()),
                FileSpools(),
                provenance_of(settings, space),
                manifest,
                since=self._since,
                at_once=self._at_once,
                failed=self._failed,
                told=lambda progress: meter.show(progress.done, _moment(progress.position), progress.objects),
            )
            try:
                await work.run()
            except BaseException:
                self._end(work.progress, complete=False)
                raise
            if manifest is not None:
                await manifest.finish(settings.PROVIDER_NAME)
            self._end(work.progress, complete=True, rate=meter.rate)
            return work.progress

    def _failed(self, key: str, reason: str) -> None:
        self._lines.write({"key": key, "reason": reason})
        self._shown += 1
        if self._shown <= _SHOWN:
            self._console.print(f"{key}: {reason}", markup=False, style="red")

    def _end(self, progress: Progress, *, complete: bool, rate: float = 0) -> None:
        self._lines.write({"summary": asdict(progress), "complete": complete})
        if not complete:
            if progress.position is not None:
                self._console.print(f"broken off; go on with --from {_moment(progress.position)}", markup=False)
            return
        text = f"{progress.done:,} of {progress.objects:,} objects read, {progress.recorded:,} instances recorded"
        text += f", {rate:,.0f} a second"
        for count, what in (
            (progress.left_out, "earlier versions or deleted"),
            (progress.failed, "could not be recorded"),
            (progress.foreign, "objects are none of ours"),
        ):
            text += f"; {count:,} {what}" if count else ""
        self._console.print(text, markup=False)


def _moment(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime(_MOMENT) if moment is not None else ""
