"""Knative alone, so that a fault of the installation is not taken for one of ours."""

import httpx
import pytest

from cluster.images import IMAGE
from cluster.kind import Kind
from cluster.kubectl import Json, Kubectl, until
from cluster.node import Node
from knative.serverless import SERVICE, is_at_zero, pods, public

PYTHON = "/opt/imaging/bin/python"
ECHO = """
import http.server, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply(b"awake")
    def do_POST(self):
        print(self.headers["ce-type"], self.rfile.read(int(self.headers["content-length"])).decode(), flush=True)
        self.reply(b"")
    def reply(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
POST = """
import sys, urllib.request
headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "test", "ce-type": sys.argv[2]}
headers["content-type"] = "application/json"
urllib.request.urlopen(urllib.request.Request(sys.argv[1], b'{"a": 1}', headers), timeout=100)
"""
RESTRICTED = {
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


READY = "--for=condition=Ready"
LOCAL_IMAGE = f"dev.local/{IMAGE}"
"""Serving asks no registry for the digest of a tag of ``dev.local``."""

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def echo(node: Node | Kind, kubectl: Kubectl, namespace: str) -> str:
    """The namespace of a Knative Service ``echo`` that answers, and writes events to its log."""
    node.tag(IMAGE, LOCAL_IMAGE)
    container = {
        "image": LOCAL_IMAGE,
        "command": [PYTHON, "-c", ECHO],
        "ports": [{"containerPort": 8080}],
        "securityContext": RESTRICTED,
    }
    service: Json = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "echo"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    kubectl.create(service, namespace=namespace)
    kubectl("wait", "ksvc/echo", "-n", namespace, READY, "--timeout=110s")
    return namespace


def test_a_request_wakes_a_service(node: Node | Kind, kubectl: Kubectl, echo: str) -> None:
    until(lambda: is_at_zero(kubectl, echo), 300)
    url, headers = public(node, echo, "echo")
    assert httpx.get(url, headers=headers, timeout=100, trust_env=False).text == "awake"
    assert pods(kubectl, echo, "echo")


def test_an_event_wakes_a_subscriber(kubectl: Kubectl, echo: str) -> None:
    until(lambda: is_at_zero(kubectl, echo), 300)
    broker: Json = {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "metadata": {"name": "events"}}
    reference = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "echo"}
    trigger: Json = {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Trigger",
        "metadata": {"name": "wanted"},
        "spec": {"broker": "events", "filter": {"attributes": {"type": "wanted"}}, "subscriber": {"ref": reference}},
    }
    kubectl.create(broker, trigger, namespace=echo)
    kubectl("wait", "broker/events", "trigger/wanted", "-n", echo, READY, "--timeout=110s")
    url = kubectl.get("broker", "events", echo)["status"]["address"]["url"]  # type: ignore[index]
    for kind in ("unwanted", "wanted"):
        post(kubectl, echo, url, kind)
    until(lambda: pods(kubectl, echo, "echo"), 240)
    kubectl("wait", "pod", "-l", f"{SERVICE}=echo", "-n", echo, READY, "--timeout=110s")
    said = ("logs", "-l", f"{SERVICE}=echo", "-n", echo, "-c", "user-container")
    until(lambda: kubectl(*said))
    assert kubectl(*said) == 'wanted {"a": 1}\n'


def post(kubectl: Kubectl, namespace: str, url: str, kind: str) -> None:
    """Send one event from within the cluster."""
    container = {
        "name": "main",
        "image": IMAGE,
        "command": [PYTHON, "-c", POST, url, kind],
        "securityContext": RESTRICTED,
    }
    spec = {"containers": [container], "restartPolicy": "Never"}
    kubectl.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": kind}, "spec": spec}, namespace=namespace)
    pod = kubectl.wait_for(lambda it: it["status"].get("phase") in ("Succeeded", "Failed"), "pod", kind, namespace)
    assert pod["status"]["phase"] == "Succeeded", kubectl("logs", kind, "-n", namespace)
