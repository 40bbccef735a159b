"""What the service says of itself agrees with what it serves: capabilities, OpenAPI, Allow, CORS."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from imaging_services.apps.dicomweb_ingestion.description.catalogue import OPERATIONS, served_operations
from support.dicomweb_in_memory import routers_in_memory, service_in_memory

WADL = "{http://wadl.dev.java.net/2009/02}"
VIEWER = "https://viewer.example.org"


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://images.example.org")


def everything(folder: Path) -> Any:
    """Routers of a service with all that can be switched on."""
    return routers_in_memory(folder, DICOMWEB_DELETE=True)


def test_every_route_is_described_and_every_description_has_its_route(tmp_path: Path) -> None:
    served = served_operations(everything(tmp_path))
    assert {(one.method, one.path) for one in served} == set(OPERATIONS)
    prefixes = {one.prefix for one in served}
    assert prefixes == {"/dicomweb", "/stow-rs", "/wado-rs", ""}


@pytest.mark.parametrize("role", ["all", "stow", "wado"])
async def test_the_openapi_document_has_exactly_the_routes_of_the_role(tmp_path: Path, role: str) -> None:
    served = routers_in_memory(tmp_path, role=role)
    expected = {(one.method, one.prefix + one.path) for one in served_operations(served)}
    async with client_of(service_in_memory(tmp_path, role=role)) as client:
        answer = await client.get("/openapi.json")
        page = await client.get("/docs")
    document = answer.json()
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item if method != "parameters"
    }
    assert described == expected
    assert ({method for method, _ in described} == {"POST"}) is (role == "stow")
    assert (("POST", "/dicomweb/studies") in described) is (role != "wado")
    names = [
        operation["operationId"]
        for item in document["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    ]
    assert len(names) == len(set(names))
    for path, item in document["paths"].items():
        assert [one["name"] for one in item["parameters"]] == re.findall(r"{(\w+)}", path)
        assert path in page.text
    assert re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text) == ["openapi.json"]  # nothing is loaded from elsewhere
    assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(("role", "post", "get"), [("all", True, True), ("stow", True, False), ("wado", False, True)])
async def test_capabilities_are_those_of_the_role(tmp_path: Path, role: str, post: bool, get: bool) -> None:
    async with client_of(service_in_memory(tmp_path, role=role)) as client:
        wadl = await client.options("/dicomweb/")
        same = await client.options("/dicomweb")
        json = await client.options("/dicomweb/", headers={"accept": "application/json"})
        neither = await client.options("/dicomweb/", headers={"accept": "image/png"})
    assert (wadl.status_code, wadl.headers["content-type"]) == (200, "application/vnd.sun.wadl+xml")
    assert same.content == wadl.content
    root = ElementTree.fromstring(wadl.content)
    resources = root.find(f"{WADL}resources")
    assert resources is not None
    assert resources.get("base") == "http://images.example.org/dicomweb/"
    (studies,) = (one for one in resources if one.get("path") == "studies")
    names = {method.get("id") for method in studies.iter(f"{WADL}method")}
    assert names == ({"StoreInstances"} if post else set()) | ({"SearchForStudies"} if get else set())
    parameters = {one.get("name") for one in studies.iter(f"{WADL}param")}
    assert ("PatientName" in parameters) is get
    listed = json.json()["application"]["resources"]["resource"]
    assert [one["path"] for one in listed] == [one.get("path") for one in resources]
    assert neither.status_code == 406


async def test_every_resource_says_which_methods_it_has(tmp_path: Path) -> None:
    async with client_of(service_in_memory(tmp_path)) as client:
        studies = await client.options("/dicomweb/studies")
        refused = await client.put("/dicomweb/studies")
        absent = await client.options("/dicomweb/patients")
        nowhere = await client.get("/dicomweb/studies/1.2/pictures")
    assert (studies.status_code, studies.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
    assert refused.headers["content-type"] == "application/problem+json"
    assert (absent.status_code, nowhere.status_code) == (404, 404)


def preflight(method: str, headers: str = "", origin: str = VIEWER) -> dict[str, str]:
    """What a browser sends before the request of a page of another origin."""
    return {
        "origin": origin,
        "access-control-request-method": method,
        **({"access-control-request-headers": headers} if headers else {}),
    }


async def test_browsers_may_send_what_viewers_send(tmp_path: Path) -> None:
    async with client_of(service_in_memory(tmp_path, [VIEWER], DICOMWEB_DELETE=True)) as client:
        asked = await client.options(
            "/dicomweb/studies", headers=preflight("GET", "accept,authorization,x-requested-with")
        )
        stored = await client.options("/dicomweb/studies", headers=preflight("POST", "content-type"))
        refused = await client.options("/dicomweb/studies", headers=preflight("PUT"))
        other = await client.options(
            "/dicomweb/studies", headers=preflight("GET", origin="https://elsewhere.example.org")
        )
        answer = await client.get("/dicomweb/studies", headers={"origin": VIEWER})
        unforeseen = await client.get("/dicomweb/studies?nonsense=1", headers={"origin": VIEWER})
    assert (asked.status_code, stored.status_code, refused.status_code) == (200, 200, 400)
    assert asked.headers["access-control-allow-origin"] == VIEWER
    assert asked.headers["access-control-allow-headers"] == "accept,authorization,x-requested-with"
    assert {"DELETE", "GET", "OPTIONS", "POST"} <= set(asked.headers["access-control-allow-methods"].split(", "))
    assert (other.status_code, "access-control-allow-origin" in other.headers) == (400, False)
    assert answer.headers["access-control-allow-origin"] == VIEWER
    assert {"ETag", "Warning", "Content-Location"} <= set(answer.headers["access-control-expose-headers"].split(", "))
    assert "Origin" in answer.headers["vary"]
    assert (unforeseen.status_code, unforeseen.headers["access-control-allow-origin"]) == (400, VIEWER)


async def test_any_origin_when_the_setting_says_so_and_none_without_it(tmp_path: Path) -> None:
    async with client_of(service_in_memory(tmp_path, ["*"])) as client:
        anyone = await client.get("/dicomweb/studies", headers={"origin": VIEWER})
    async with client_of(service_in_memory(tmp_path)) as client:
        nobody = await client.get("/dicomweb/studies", headers={"origin": VIEWER})
        asked = await client.options("/dicomweb/studies", headers=preflight("GET"))
    assert anyone.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in {**nobody.headers, **asked.headers}
