"""HEAD on everything that has GET."""

from pathlib import Path

import httpx
import pytest

from support.dicom_files import storable_files
from support.dicomweb_in_memory import service_in_memory, store
from support.http_server import serving

CHANGING = {"x-correlation-id", "date", "transfer-encoding"}
BELOW = ("", "/metadata", "/rendered", "/thumbnail")


async def test_head_has_the_headers_of_get_and_no_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = (one for one in storable_files() if one.path.name == "CT_small.dcm")
    study = f"/dicomweb/studies/{file.study_instance_uid}"
    series = f"{study}/series/{file.series_instance_uid}"
    instance = f"/dicomweb/{file.resource}"
    wado = {"studyUID": file.study_instance_uid, "seriesUID": file.series_instance_uid}
    query = httpx.QueryParams({"requestType": "WADO", "objectUID": file.sop_instance_uid, **wado})
    paths = [
        "/openapi.json",
        "/docs",
        "/dicomweb/studies",
        f"{study}/series",
        f"{series}/instances",
        *(level + below for level in (study, series, instance) for below in BELOW),
        f"{instance}/frames/1",
        f"{instance}/frames/1/rendered",
        f"{instance}/bulkdata/7FE00010",
        f"/wado?{query}",
        f"/dicomweb/wado?{query}&contentType=application/dicom",
        f"/dicomweb/wado?{query}&contentType=application/dicom&anonymize=yes",
        "/dicomweb/studies/1.2.3",
        "/dicomweb/studies?PatientNam=x",
    ]
    headers = {"accept-encoding": "gzip"}
    async with serving(service_in_memory(tmp_path)) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        async with httpx.AsyncClient(base_url=f"{url}/dicomweb/") as sender:
            await store(sender, [file])
        got = {path: await client.get(path, headers=headers) for path in paths}
        assert {answer.status_code for answer in got.values()} == {200, 400, 404}
        monkeypatch.setattr("imaging_services.apps.dicomweb_ingestion.rendered_sources.decode_frame", None)
        for path, answer in got.items():
            head = await client.head(path, headers={**headers, "range": "bytes=0-1"})
            assert (head.status_code, head.content) == (answer.status_code, b""), path
            wanted = {name: value for name, value in answer.headers.items() if name not in CHANGING}
            found = {name: value for name, value in head.headers.items() if name not in CHANGING}
            if "content-length" not in found:  # which follows from making the body
                wanted.pop("content-length", None)
            if found["content-type"] == "multipart/related":  # the type of its parts does as well
                wanted["content-type"] = wanted["content-type"].partition(";")[0]
            assert found == wanted, path
        frame = await client.head(f"{instance}/frames/1", headers={"accept": "application/octet-stream"})
        assert frame.headers["content-length"] == str(128 * 128 * 2)
        known = await client.head(instance, headers={"if-none-match": got[instance].headers["etag"]})
        assert known.status_code == 304
        assert (await client.head("/dicomweb/patients")).status_code == 404
