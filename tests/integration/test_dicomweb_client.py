"""Every function of dicomweb-client against this service."""

import inspect
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from requests.exceptions import HTTPError

from support.dicom_files import DicomFile, storable_files
from support.dicomweb_in_memory import service_in_a_thread
from support.ports import a_free_port

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")  # pydicom's; requests' pool
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    FILES = {file.path.name: file for file in storable_files()}
CT, MR, COLOURS = FILES["CT_small.dcm"], FILES["MR_small_jpeg_ls_lossless.dcm"], FILES["SC_rgb_rle_2frame.dcm"]
SERIES = [file for file in FILES.values() if file.series_instance_uid == FILES["17106"].series_instance_uid]
AS_STORED = (("application/dicom", "*"),)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DICOMwebClient]:
    """A client of a service that has the files."""
    port = a_free_port()
    base = f"http://127.0.0.1:{port}/dicomweb"  # this client's Host header lacks the port
    folder = tmp_path_factory.mktemp("service")
    with service_in_a_thread(folder, port, DICOMWEB_DELETE=True, WADO_EXTERNAL_ENDPOINT=base):
        client = DICOMwebClient(base)
        stored = client.store_instances([pydicom.dcmread(file.path) for file in (CT, MR, COLOURS, *SERIES)])
        assert len(stored.ReferencedSOPSequence) == 3 + len(SERIES)
        assert "FailedSOPSequence" not in stored
        yield client


def uids(results: list[dict[str, dict[str, list[str]]]], keyword: str) -> list[str]:
    """The values of a UID in results of a search."""
    tag = DICOMwebClient.lookup_tag(keyword)
    assert DICOMwebClient.lookup_keyword(tag) == keyword
    return [result[tag]["Value"][0] for result in results]


def test_search_for_studies(client: DICOMwebClient) -> None:
    everything = client.search_for_studies()
    studies = uids(everything, "StudyInstanceUID")
    assert sorted(studies) == sorted({file.study_instance_uid for file in (CT, MR, COLOURS, *SERIES)})
    assert uids(client.search_for_studies(limit=1, offset=2), "StudyInstanceUID") == studies[2:3]
    assert uids(client.search_for_studies(limit=1, get_remaining=True), "StudyInstanceUID") == studies
    named = client.search_for_studies(search_filters={"PatientName": "CompressedSamples^CT*"}, fields=["PatientID"])
    assert uids(named, "StudyInstanceUID") == [CT.study_instance_uid]
    fuzzy = client.search_for_studies(fuzzymatching=True, search_filters={"PatientName": "ct1"})
    assert uids(fuzzy, "StudyInstanceUID") == [CT.study_instance_uid]
    assert client.search_for_studies(additional_params={"StudyDate": "18990101"}) == []


def test_search_for_series_and_instances(client: DICOMwebClient) -> None:
    study, series, _ = SERIES[0].identity
    found = client.search_for_series(study, search_filters={"Modality": "CT"})
    assert uids(found, "SeriesInstanceUID") == [series]
    assert series in uids(client.search_for_series(), "SeriesInstanceUID")
    everything = client.search_for_instances(study, series, fields=["Rows"])
    assert sorted(uids(everything, "SOPInstanceUID")) == sorted(file.sop_instance_uid for file in SERIES)
    assert everything[0]["00280010"]["Value"] == [16]
    paged = client.search_for_instances(study, series, limit=1, get_remaining=True)
    assert uids(paged, "SOPInstanceUID") == uids(everything, "SOPInstanceUID")
    (one,) = client.search_for_instances(search_filters={"SOPInstanceUID": MR.sop_instance_uid})
    assert one["0020000D"]["Value"] == [MR.study_instance_uid]


def test_retrieve_studies_and_series(client: DICOMwebClient) -> None:
    study, series, _ = SERIES[0].identity
    expected = {file.sop_instance_uid: pydicom.dcmread(file.path).PixelData for file in SERIES}
    for datasets in (
        client.retrieve_study(study),
        client.iter_study(study, media_types=AS_STORED),
        client.retrieve_series(study, series, media_types=AS_STORED),
        client.iter_series(study, series),
    ):
        assert {dataset.SOPInstanceUID: dataset.PixelData for dataset in datasets} == expected


@pytest.mark.parametrize("file", [CT, MR, COLOURS], ids=["native", "JPEG-LS", "RLE"])
def test_retrieve_instances_and_frames(client: DICOMwebClient, file: DicomFile) -> None:
    original = pydicom.dcmread(file.path)
    kept = client.retrieve_instance(*file.identity, media_types=AS_STORED)
    assert kept.PixelData == original.PixelData
    native = client.retrieve_instance(*file.identity, media_types=(("application/dicom", "1.2.840.10008.1.2.1"),))
    assert native.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert client.retrieve_instance(*file.identity).SOPInstanceUID == file.sop_instance_uid
    frames = client.retrieve_instance_frames(*file.identity, [1], media_types=(("application/octet-stream", "*"),))
    if not original.file_meta.TransferSyntaxUID.is_compressed:
        assert frames == [original.PixelData]
    else:
        assert frames == [next(pydicom.encaps.generate_frames(original.PixelData, number_of_frames=1))]
    decoded = client.iter_instance_frames(
        *file.identity, [1], media_types=(("application/octet-stream", "1.2.840.10008.1.2.1"),)
    )
    assert b"".join(decoded) == native.PixelData[: len(native.PixelData) // int(native.get("NumberOfFrames", 1))]
    assert len(client.retrieve_instance_frames(*file.identity, [1])) == 1


def test_retrieve_metadata_and_bulk_data(client: DICOMwebClient) -> None:
    study, series, _ = SERIES[0].identity
    expected = sorted(file.sop_instance_uid for file in SERIES)
    assert sorted(uids(client.retrieve_study_metadata(study), "SOPInstanceUID")) == expected
    assert sorted(uids(client.retrieve_series_metadata(study, series), "SOPInstanceUID")) == expected
    metadata = client.retrieve_instance_metadata(*CT.identity)
    assert pydicom.Dataset.from_json(metadata, bulk_data_uri_handler=lambda _uri: b"").PatientID == "1CT1"
    uri = metadata["7FE00010"]["BulkDataURI"]
    pixels = pydicom.dcmread(CT.path).PixelData
    assert client.retrieve_bulkdata(uri) == [pixels]
    assert list(client.iter_bulkdata(uri)) == [pixels]
    octets = ("application/octet-stream",)
    assert client.retrieve_bulkdata(uri, media_types=octets, byte_range=(10, 19)) == [pixels[10:20]]


def test_retrieve_rendered(client: DICOMwebClient) -> None:
    study, series, instance = CT.identity
    jpeg = client.retrieve_instance_rendered(study, series, instance)
    assert Image.open(io.BytesIO(jpeg)).size == (128, 128)
    png = client.retrieve_instance_rendered(
        study, series, instance, media_types=("image/png",), params={"viewport": "64,64", "window": "40,400,linear"}
    )
    assert Image.open(io.BytesIO(png)).size == (64, 64)
    frame = client.retrieve_instance_frames_rendered(*COLOURS.identity, [2], media_types=("image/png",))
    pixels = np.asarray(Image.open(io.BytesIO(frame)).convert("RGB"))
    assert np.array_equal(pixels, pydicom.dcmread(COLOURS.path).pixel_array[1])
    assert Image.open(io.BytesIO(client.retrieve_series_rendered(study, series, media_types=("image/png",)))).size == (
        128,
        128,
    )


def test_store_in_chunks_and_delete(client: DICOMwebClient) -> None:
    files = [FILES["rtplan.dcm"], FILES["reportsi.dcm"], FILES["examples_rgb_color.dcm"]]
    client.set_chunk_size(1000)
    client.set_http_retry_params(retry=False)
    for file in files:
        stored = client.store_instances([pydicom.dcmread(file.path)], study_instance_uid=file.study_instance_uid)
        assert stored.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == file.sop_instance_uid
    one, two, three = (file.identity for file in files)
    client.delete_instance(*one)
    client.delete_series(*two[:2])
    client.delete_study(three[0])
    for study, _, _ in (one, two, three):
        assert client.search_for_studies(search_filters={"StudyInstanceUID": study}) == []
    with pytest.raises(HTTPError, match="404"):
        client.retrieve_instance_metadata(*one)


def test_no_function_was_forgotten() -> None:
    public = {name for name, _ in inspect.getmembers(DICOMwebClient, callable) if not name.startswith("_")}
    source = Path(__file__).read_text()
    assert public == public & set(re.findall(r"(?:client|DICOMwebClient)\.(\w+)\(", source))
