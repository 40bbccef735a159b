"""The capabilities document (PS3.18 section 8.9 and annex H): WADL, or the same as JSON."""

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from imaging_services.apps.dicomweb_ingestion.description.catalogue import Served
from imaging_services.apps.dicomweb_ingestion.description.model import PROBLEM, Operation

WADL = "application/vnd.sun.wadl+xml"
_NAMESPACE = "http://wadl.dev.java.net/2009/02"
Tree = dict[str, Any]


def capabilities(served: Sequence[Served], base: str) -> Tree:
    """The resources below ``base``, each with its methods, as a tree that both encodings are made from."""
    resources: dict[str, Tree] = {}
    for one in served:
        if one.operation is not None:
            path = one.path.lstrip("/")
            names = re.findall(r"{(\w+)}", path)
            resource = resources.setdefault(
                path,
                {"path": path, "param": [_param(name, "template", required=True) for name in names], "method": []},
            )
            resource["method"].append(_method(one.method, one.operation))
    return {"resources": {"base": f"{base}/", "resource": list(resources.values())}}


def to_wadl(tree: Tree) -> bytes:
    """The tree as WADL: lists are repeated elements, other members attributes."""
    root = _element("application", {"xmlns": _NAMESPACE, **tree})
    return b'<?xml version="1.0" encoding="utf-8"?>' + ElementTree.tostring(root, "unicode").encode()


def _element(name: str, members: Tree) -> ElementTree.Element:
    element = ElementTree.Element(name)
    for key, value in members.items():
        if isinstance(value, str):
            element.set(key, value)
        else:
            for child in value if isinstance(value, list) else [value]:
                element.append(_element(key, child))
    return element


def _method(method: str, operation: Operation) -> Tree:
    request: Tree = {
        "param": [
            _param(one.name, one.place, required=one.required, repeats=one.repeats) for one in operation.parameters
        ],
        "representation": [{"mediaType": media_type} for media_type in operation.request],
    }
    refused = " ".join(map(str, operation.refusals))
    responses = [
        {"status": str(status), "representation": [{"mediaType": media_type} for media_type in media_types]}
        for status, media_types in operation.answers.items()
    ]
    responses.append({"status": refused, "representation": [{"mediaType": PROBLEM}]})
    return {"name": method, "id": operation.name, "request": request, "response": responses}


def _param(name: str, style: str, *, required: bool = False, repeats: bool = False) -> Tree:
    return {
        "name": name,
        "style": style,
        "type": "string",
        "required": str(required).lower(),
        "repeating": str(repeats).lower(),
    }
