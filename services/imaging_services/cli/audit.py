"""``imaging audit``: whether everything is there, and mending what is not."""

from collections import Counter
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from imaging_services.adapters.files.spool import FileSpools
from imaging_services.adapters.postgres.audit import PostgresAudit
from imaging_services.adapters.postgres.pool import open_pool
from imaging_services.cli.json_lines import JsonLines
from imaging_services.cli.meter import Meter
from imaging_services.cli.space import EnvFile, JsonFile, database_of, load_space, open_target_space, provenance_of
from imaging_services.cli.target import DataDir, TargetSettings
from imaging_services.domain.audit.audit import Audit, AuditOptions
from imaging_services.domain.audit.model import Finding, Role, Summary
from imaging_services.domain.audit.repair import Repair
from imaging_services.wiring.events import open_sink

_SHOWN = 20
_IN_ORDER = {
    Role.INSTANCE: "instances",
    Role.REPLACED: "earlier versions",
    Role.WAITING: "deleted and waiting to be removed",
    Role.DELETED: "of deleted names, written just now",
    Role.OTHER: "of other providers",
}


def audit(
    data_dir: DataDir = None,
    env_file: EnvFile = None,
    full: Annotated[bool, typer.Option("--full", help="Read every object and compute its digest.")] = False,
    sample: Annotated[
        float, typer.Option(min=0, max=100, metavar="PERCENT", help="So many objects have their digests computed.")
    ] = 1,
    repair: Annotated[bool, typer.Option("--repair", help="Record unknown objects, mark missing ones.")] = False,
    newest_wins: Annotated[
        bool,
        typer.Option(
            "--newest-wins",
            help="With --repair: an unknown object that was written after the recorded version of its instance was "
            "accepted replaces it. After the database was restored from a backup.",
        ),
    ] = False,
    mark_all: Annotated[
        bool,
        typer.Option(
            "--mark-all",
            help="With --repair: mark missing instances also when they are more than 100 and more than 10 %, or all.",
        ),
    ] = False,
    grace: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Younger objects may yet be recorded, and count as recent.")
    ] = 900,
    after: Annotated[str, typer.Option("--from", metavar="KEY", help="Begin behind this key.")] = "",
    json_file: JsonFile = None,
) -> None:
    """Compare a storage space with the manifest.

    Works while both are in use. Exits with 1 when something is wrong, also when it was repaired.
    """
    settings = load_space(data_dir, env_file)
    options = AuditOptions(percent=100 if full else sample, grace=timedelta(seconds=grace), after=after)
    console = Console(highlight=False, soft_wrap=True)
    with JsonLines(json_file) as lines:
        summary = uvloop.run(
            _audit(settings, options, _Output(console, lines), repair, newest_wins=newest_wins, mark_all=mark_all)
        )
    if summary.findings:
        raise typer.Exit(1)


async def _audit(
    settings: TargetSettings, options: AuditOptions, output: "_Output", mend: bool, *, newest_wins: bool, mark_all: bool
) -> Summary:
    async with AsyncExitStack() as stack:
        space = await stack.enter_async_context(open_target_space(settings))
        pool = await stack.enter_async_context(open_pool(database_of(settings, "imaging-audit")))
        manifest = PostgresAudit(pool, settings.PROVIDER_NAME, space.bucket_name)
        repair = None
        if mend:
            sink = await stack.enter_async_context(open_sink(settings, "imaging-audit"))
            repair = Repair(space, manifest, sink, provenance_of(settings, space), newest_wins, mark_all)
        meter = stack.enter_context(Meter(output.console, "auditing", await manifest.total()))
        audit = Audit(
            space,
            manifest,
            FileSpools(),
            options,
            report=output.tell,
            repair=repair,
            progress=lambda seen: meter.show(seen.objects, seen.position),
        )
        try:
            await audit.run()
        except BaseException:
            output.broken_off(audit.summary)
            raise
        output.end(audit.summary)
        return audit.summary


class _Output:
    """Tells people the first findings and the summary, and programs all of it."""

    def __init__(self, console: Console, lines: JsonLines) -> None:
        self.console, self._lines = console, lines
        self._shown: Counter[str] = Counter()

    def tell(self, finding: Finding) -> None:
        """One finding."""
        self._lines.write(finding.document())
        self._shown[finding.kind] += 1
        if self._shown[finding.kind] > _SHOWN:
            return
        instance = f" ({'/'.join(finding.instance)})" if finding.instance else ""
        done = f": {finding.repaired}" if finding.repaired else ""
        text = f"{finding.kind}: {finding.key}{instance}: {finding.reason}{done}"
        self.console.print(text, markup=False, style="red")
        if self._shown[finding.kind] == _SHOWN:
            self.console.print(f"{finding.kind}: further ones are only counted here", style="dim")

    def broken_off(self, summary: Summary) -> None:
        """The audit did not come to its end."""
        self._lines.write({"summary": summary.document(), "complete": False})
        if summary.position:
            self.console.print(f"broken off; go on with --from {summary.position}", markup=False)

    def end(self, summary: Summary) -> None:
        """The audit is done."""
        self._lines.write({"summary": summary.document(), "complete": True})
        right = [f"{summary.roles[role]:,} {text}" for role, text in _IN_ORDER.items() if summary.roles[role]]
        right += [f"{summary.recent:,} recent"] if summary.recent else []
        self.console.print(f"{summary.objects:,} objects; in order: {', '.join(right) or 'none'}")
        self.console.print(f"{summary.digests:,} digests of {summary.digest_bytes:,} bytes computed")
        if summary.marked:
            self.console.print(f"{summary.marked:,} instances are marked as missing, and still are")
        wrong = [f"{count:,} {kind}" for kind, count in sorted(summary.findings.items())]
        repaired = f"; {summary.repaired:,} repaired" if summary.repaired else ""
        self.console.print(f"wrong: {', '.join(wrong)}{repaired}" if wrong else "nothing is wrong")
