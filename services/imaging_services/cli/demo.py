"""``imaging up --demo``: real files through the whole path, each step shown as it happens."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
from rich.console import Console
from rich.table import Table

from imaging_services.cli.sending import DicomFile, Sent, read_dicom_file, send_files
from imaging_services.domain.errors import BackendUnavailable, ImagingError
from imaging_services.local.configuration import PROXY_AE, StackConfiguration
from imaging_services.local.ports import LOOPBACK
from imaging_services.local.readiness import http_get, http_json
from imaging_services.local.webhook import Webhook

# Shipped inside pydicom, nothing is downloaded.
FILES = {
    "CT_small.dcm": "CT",
    "693_J2KI.dcm": "CT, JPEG 2000",
    "MR_small.dcm": "MR",
    "examples_overlay.dcm": "MR with overlay",
    "examples_ybr_color.dcm": "US, 30 frames, JPEG",
    "examples_jpeg2k.dcm": "US, JPEG 2000 lossless",
    "examples_palette.dcm": "US, palette colour",
    "JPEG-lossy.dcm": "NM, JPEG extended",
    "rtplan.dcm": "RT plan",
    "rtdose.dcm": "RT dose, 15 frames",
    "liver_1frame.dcm": "segmentation",
    "reportsi.dcm": "structured report",
    "waveform_ecg.dcm": "ECG waveform",
    "SC_rgb_jpeg_gdcm.dcm": "secondary capture, JPEG lossless",
}
_STEP_SECONDS = 60.0


class Demo:
    """One demonstration; ``failure`` says afterwards what went wrong."""

    def __init__(self, console: Console, webhook: Webhook, *, exit_when_done: bool) -> None:
        self._console = console
        self._webhook = webhook
        self._exit_when_done = exit_when_done
        self.failure: ImagingError | None = None

    async def run(self, configuration: StackConfiguration) -> bool:
        """Show every step; returns whether the stack goes on running."""
        try:
            await self._show(configuration)
        except ImagingError as error:
            self.failure = error
            self._console.print(f"the demo failed: {error}", style="bold red", markup=False)
            return False
        return not self._exit_when_done

    async def _show(self, configuration: StackConfiguration) -> None:
        base, counts_url = configuration.url("dicomweb", "/dicomweb"), configuration.url("events", "/query/counts")
        files = [file for name in FILES if (file := _shipped(name)) is not None]
        new = [file for file in files if not await asyncio.to_thread(_is_found, base, file)]
        self._console.print(f"[bold]demo[/bold]: {len(files)} real files that pydicom ships\n")
        if len(new) < len(files):
            known = len(files) - len(new)
            self._console.print(f"{known} are stored already: sending them again changes nothing\n", style="dim")
        before = await asyncio.to_thread(_count, counts_url, "instances")
        await self._send(files, configuration)
        uids = {file.sop_instance_uid for file in new}
        studies = {file.study_instance_uid for file in new}
        await self._step("recorded in the manifest", len(new), lambda: _count(counts_url, "instances") - before)
        await self._step("found by QIDO-RS", len(files), lambda: sum(_is_found(base, file) for file in files))
        await self._step("read back by WADO-RS, same bytes", len(files), lambda: sum(_is_kept(base, f) for f in files))
        await self._step("announced to a webhook", len(uids), lambda: len(_announced(self._webhook) & uids))
        await self._step("study revisions delivered", len(studies), lambda: len(_revised(self._webhook) & studies))
        self._console.print("\n[bold green]done[/bold green]: sent, stored, recorded, queryable, announced\n")

    async def _send(self, files: list[DicomFile], configuration: StackConfiguration) -> None:
        table = Table(box=None, pad_edge=False)
        for column in ("file", "what", "C-STORE"):
            table.add_column(column, no_wrap=True, overflow="ignore")
        stored: list[Sent] = []

        def sent(one: Sent) -> None:
            answer = f"[red]{one.problem}[/red]" if one.problem else f"[green]{one.status:04X}H success[/green]"
            table.add_row(one.file.path.name, FILES[one.file.path.name], answer)
            if not one.problem:
                stored.append(one)

        port, start = configuration.port("dimse-proxy"), time.monotonic()
        await send_files(files, LOOPBACK, port, PROXY_AE, calling="DEMO", sent=sent)
        self._console.print(table)
        self._done("sent through the proxy by C-STORE", len(stored), len(files), time.monotonic() - start)
        if len(stored) < len(files):
            raise BackendUnavailable(f"{len(files) - len(stored)} files were not accepted")

    async def _step(self, what: str, wanted: int, look: Callable[[], int]) -> None:
        """Wait until ``look`` sees as many as wanted."""
        start = time.monotonic()
        while (seen := await asyncio.to_thread(look)) < wanted:
            if time.monotonic() - start > _STEP_SECONDS:
                raise BackendUnavailable(f"{what}: {seen} of {wanted} after {_STEP_SECONDS:.0f} s")
            await asyncio.sleep(0.1)
        self._done(what, seen, wanted, time.monotonic() - start)

    def _done(self, what: str, seen: int, wanted: int, seconds: float) -> None:
        self._console.print(f"[green]✓[/green] {what:<36} {min(seen, wanted):>3} of {wanted:<3} after {seconds:5.1f} s")


def _shipped(name: str) -> DicomFile | None:
    root = Path(pydicom.__file__).parent / "data"
    return next((file for path in root.rglob(name) if (file := read_dicom_file(path)) is not None), None)


def _count(url: str, name: str) -> int:
    counts: dict[str, int] = http_json(url) or {}
    return counts.get(name, 0)


def _is_found(base: str, file: DicomFile) -> bool:
    query = f"?StudyInstanceUID={file.study_instance_uid}&SOPInstanceUID={file.sop_instance_uid}"
    return bool(http_json(f"{base}/instances{query}"))  # nothing found is 200 with an empty list


def _is_kept(base: str, file: DicomFile) -> bool:
    """The stored data set is the sent one, byte for byte."""
    path = f"/studies/{file.study_instance_uid}/series/{file.series_instance_uid}/instances/{file.sop_instance_uid}"
    answer = http_get(f"{base}{path}", 'multipart/related; type="application/dicom"; transfer-syntax=*', seconds=20)
    data_set = file.path.read_bytes()[file.data_set :]
    return answer is not None and answer[0] == 200 and data_set in answer[1]


def _announced(webhook: Webhook) -> set[str]:
    """SOP Instance UIDs: the last part of each event's endpoint."""
    return {str(data["endpoint"]).rsplit("/", 1)[-1] for data in webhook.events("DicomAvailableEvent")}


def _revised(webhook: Webhook) -> set[str]:
    return {str(data["study"]["studyInstanceUID"]) for data in webhook.events("StudyRevisionEvent")}
