"""``imaging send``: files to any DICOM node."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from imaging_services.cli.sending import CALLING_AE, DicomFile, Sent, find_files, read_dicom_file, send_files
from imaging_services.domain.errors import BackendUnavailable, InvalidInput, SettingsError
from imaging_services.local.bindings import parse_dimse


def send(
    paths: Annotated[list[Path], typer.Argument(exists=True, help="Files, or folders searched for DICOM files.")],
    to: Annotated[str, typer.Option("--to", metavar="AE@HOST:PORT", help="Where to send.", show_default=False)],
    calling: Annotated[str, typer.Option(metavar="AE", help="Our AE title.")] = CALLING_AE,
    associations: Annotated[int, typer.Option(min=1, max=16, help="Associations at a time.")] = 1,
) -> None:
    """Send DICOM files by C-STORE, data sets as they are."""
    called, host, port = parse_dimse(to)
    console = Console(highlight=False, soft_wrap=True)
    candidates = find_files(paths)
    files, unreadable = _read(candidates)
    if skipped := len(candidates) - len(files) - len(unreadable):
        console.print(f"{skipped} of {len(candidates)} files are no DICOM instances and are left out", style="dim")
    for problem in unreadable:
        console.print(problem, style="red", markup=False)
    if not files:
        raise SettingsError("there is nothing to send")
    failed: list[Sent] = []
    columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        task = progress.add_task("send", total=len(files))

        def sent(one: Sent) -> None:
            progress.advance(task)
            if one.problem:
                failed.append(one)

        asyncio.run(send_files(files, host, port, called, calling=calling, associations=associations, sent=sent))
    for problem, paths in _by_problem(failed).items():
        others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        console.print(f"{paths[0]}{others}: {problem}", style="red", markup=False)
    console.print(f"{len(files) - len(failed)} of {len(files)} instances stored at {called}")
    if failed:
        raise BackendUnavailable(f"{len(failed)} instances were not stored")
    if unreadable:
        raise InvalidInput(f"{len(unreadable)} files could not be read and were not sent")


def _read(candidates: list[Path]) -> tuple[list[DicomFile], list[str]]:
    """The instances among the files, and a sentence for each file that cannot be read: it may be one."""
    files: list[DicomFile] = []
    unreadable: list[str] = []
    for path in candidates:
        try:
            file = read_dicom_file(path)
        except OSError as error:
            unreadable.append(f"{path} cannot be read: {error.strerror}")
        else:
            files += [file] if file is not None else []
    return files, unreadable


def _by_problem(failed: list[Sent]) -> dict[str, list[Path]]:
    """Files that failed in the same way are told together: a peer that is away fails them all."""
    paths: dict[str, list[Path]] = {}
    for one in failed:
        paths.setdefault(one.problem or "", []).append(one.file.path)
    return paths
