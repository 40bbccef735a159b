"""Our client against our server, and the command that uses it."""

import asyncio
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom.encaps import generate_frames
from typer.testing import CliRunner

from imaging_services.adapters.http.client import HttpOptions, HttpTarget
from imaging_services.cli.__main__ import build
from imaging_services.domain.errors import BackendUnavailable, InvalidInput, NotFound, Refused
from imaging_services.domain.streaming.client import StreamingAddress, StreamingClient
from imaging_services.domain.streaming.frame_loader import FrameLoader
from imaging_services.domain.streaming.study_reader import StreamedStudy
from support.dicom_files import DicomFile, storable_files
from support.dicomweb import Recorded, keep, part10_of, served
from support.streaming import CountingStore, as_mtom, soap_headers, soap_request, streaming_app, study_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of awkward files
NAMES = ["CT_small.dcm", "examples_ybr_color.dcm", "JPEG2000.dcm", "rtplan.dcm"]


def files() -> list[DicomFile]:
    return [next(file for file in storable_files() if file.path.name == name) for name in NAMES]


@asynccontextmanager
async def serving(*stored: DicomFile) -> AsyncIterator[tuple[str, CountingStore, Recorded]]:
    store, recorded = CountingStore(), Recorded()
    for file in stored:
        await keep(store, recorded, file)
    async with served(streaming_app(recorded, store)) as url:
        yield url, store, recorded


@asynccontextmanager
async def client_of(url: str, **address: str) -> AsyncIterator[StreamingClient]:
    async with HttpTarget(url, HttpOptions(max_connections=8)) as http:
        yield StreamingClient(http, StreamingAddress.of(f"{url}/wado/north", **address))


def test_addresses() -> None:
    address = StreamingAddress.of("https://archive:1000/WADO/NORTH/", None)
    assert address == StreamingAddress(
        "https://archive:1000/WADO/NORTH", "https://archive:1000/HeaderStreaming/HeaderStreaming", "NORTH"
    )
    assert StreamingAddress.of("http://a/wado/N", "http://a:50221/H/H").headers == "http://a:50221/H/H"
    assert StreamingAddress.of("http://a/wado/NORTH%20WING").partition == "NORTH WING"
    for url in (
        "http://archive",
        "http://archive/wado",
        "http://archive/dicomweb/x",
        "archive/wado/x",
        "ftp://a/wado/x",
    ):
        with pytest.raises(InvalidInput):
            StreamingAddress.of(url)


async def test_a_study_is_opened_and_each_frame_is_what_the_file_has() -> None:
    async with serving(*files()) as (url, _, _recorded), client_of(url) as client:
        for file in files():
            study = await client.open_study(file.study_instance_uid)
            assert study.study_instance_uid == file.study_instance_uid
            (instance,) = study.instances
            assert instance.sop_class_uid == file.sop_class_uid
            assert instance.size == len(part10_of(file))
            dataset = pydicom.dcmread(file.path)
            wanted = frames_of(dataset)
            assert instance.frames == len(wanted)
            async with FrameLoader(client, study, connections=3) as frames:
                for position, content in enumerate(wanted):
                    frame = await frames.get(position)
                    assert frame.content == content
                    assert frame.transfer_syntax_uid == file.transfer_syntax_uid
                    assert frame.fields.get("imagewidth") in (None, str(dataset.Columns))


def frames_of(dataset: pydicom.Dataset) -> list[bytes]:
    if "PixelData" not in dataset:
        return []
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        return list(generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)))
    return [dataset.PixelData[: dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8]]


async def test_an_excluded_value_is_in_the_whole_header_and_the_file_can_be_had() -> None:
    file = next(file for file in storable_files() if file.path.name == "waveform_ecg.dcm")
    async with serving(file) as (url, _, _recorded), client_of(url) as client:
        study = await client.open_study(file.study_instance_uid)
        (instance,) = study.instances
        (group, *_) = instance.attributes[0x54000100].items or ()
        assert group[0x54001010].excluded
        header = pydicom.dcmread(io.BytesIO(await client.header(study, instance)))
        assert header.WaveformSequence == pydicom.dcmread(file.path).WaveformSequence
        assert await client.file(study, instance) == part10_of(file)


async def test_what_faults_say() -> None:
    async with serving(files()[0]) as (url, store, _):
        async with client_of(url) as client:
            with pytest.raises(NotFound, match="no such study"):
                await client.open_study("1.2.3")
            store.failure = BackendUnavailable("the space is away")
            with pytest.raises(BackendUnavailable, match="the space is away"):
                await client.open_study(files()[0].study_instance_uid)
        async with HttpTarget(url, HttpOptions()) as http:
            elsewhere = StreamingClient(http, StreamingAddress.of(f"{url}/wado/south"))
            with pytest.raises(Refused, match="no partition 'south'"):
                await elsewhere.open_study("1.2.3")


async def test_a_study_in_use_is_asked_for_again() -> None:
    async with serving(files()[0]) as (url, store, _), client_of(url) as client:
        store.failure = BackendUnavailable("in use")
        asking = asyncio.create_task(client.open_study(files()[0].study_instance_uid))
        await asyncio.sleep(0.1)
        store.failure = None
        assert isinstance(await asking, StreamedStudy)


async def test_our_client_reads_mtom_too() -> None:
    """As a .NET server answers; ours answers in the form of the request."""
    from imaging_services.domain.streaming.mtom import read_message
    from imaging_services.domain.streaming.soap import read_response

    file = files()[0]
    async with serving(file) as (url, _, _recorded), httpx.AsyncClient() as plain:
        headers, body = as_mtom(soap_request(file.study_instance_uid))
        answer = await plain.post(f"{url}/HeaderStreaming/HeaderStreaming", content=body, headers=headers)
        message = read_message(answer.headers["content-type"], answer.content)
        assert message.mtom
        assert read_response(message) == study_of(answer)
        broken = await plain.post(
            f"{url}/HeaderStreaming/HeaderStreaming", content=soap_request("1.2"), headers=soap_headers()
        )
        with pytest.raises(NotFound):
            read_response(read_message(broken.headers["content-type"], broken.content))


async def command(*arguments: str) -> tuple[int, str]:
    def run() -> tuple[int, str]:
        try:
            result = CliRunner().invoke(build(["stream"]), ["stream", *arguments], catch_exceptions=False)
        except Exception as error:  # noqa: BLE001 - main() makes a line of it
            return 1, str(error)
        return result.exit_code, result.output

    return await asyncio.to_thread(run)


async def test_the_command_shows_times_and_writes_the_frames(tmp_path: Path) -> None:
    file = files()[1]
    async with serving(file) as (url, _, _recorded):
        code, output = await command(
            file.study_instance_uid, "--from", f"{url}/wado/north", "--output", str(tmp_path / "out")
        )
        assert code == 0, output
        assert "headers of 1 instances in 1 series, 30 frames" in output
        assert re.search(r"first image, \d+ bytes +\d+\.\d{3} s", output)
        assert len(re.findall(r"image \d+ of 30 +\d+\.\d{3} s after it was asked for", output)) == 4
        assert re.search(r"all 30 frames +\d+\.\d{3} s, \d+\.\d MiB/s", output)
        written = sorted((tmp_path / "out").iterdir())
        assert [path.suffix for path in written] == [".jpg"] * 30
        wanted = frames_of(pydicom.dcmread(file.path))
        assert [path.read_bytes() for path in written] == wanted

        code, output = await command(files()[3].study_instance_uid, "--from", f"{url}/wado/north")
        assert (code, "no such study" in output) == (1, True)
        code, output = await command("not-a-uid", "--from", f"{url}/wado/north")
        assert (code, "is not a UID" in output) == (1, True)
        code, output = await command("1.2.3", "--from", url)
        assert "no URL such as" in output
