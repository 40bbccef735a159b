"""The cluster itself: pods of the project's image run, find each other by name, and keep nothing behind."""

import json

from cluster.images import IMAGE
from cluster.kubectl import Json, Kubectl, until

PYTHON = "/opt/imaging/bin/python"
ANSWERING = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["ANSWER"].encode())
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
ASKING = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=20).read().decode())"


def test_pods_reach_each_other_by_name(kubectl: Kubectl, namespace: str) -> None:
    pod = restricted_pod("server", [PYTHON, "-c", ANSWERING], ANSWER="forty-two")
    pod["metadata"]["labels"] = {"app": "server"}
    pod["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "server"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    url = f"http://server.{namespace}.svc.cluster.local"
    kubectl.create(pod, service, namespace=namespace)
    kubectl("wait", "pod/server", "-n", namespace, "--for=condition=Ready", "--timeout=100s")
    kubectl.create(restricted_pod("client", [PYTHON, "-c", ASKING, url]), namespace=namespace)
    kubectl.wait_for(lambda pod: pod["status"].get("phase") in ("Succeeded", "Failed"), "pod", "client", namespace)
    assert kubectl("logs", "client", "-n", namespace).strip() == "forty-two"


def test_the_image_runs_as_the_restricted_profile_demands(kubectl: Kubectl, namespace: str) -> None:
    kubectl.create(restricted_pod("version", ["imaging", "--help"]), namespace=namespace)
    kubectl.wait_for(lambda pod: pod["status"].get("phase") in ("Succeeded", "Failed"), "pod", "version", namespace)
    output = kubectl("logs", "version", "-n", namespace)
    assert "run" in output
    found = kubectl.get("pod", "version", namespace)
    assert found is not None
    assert found["status"]["phase"] == "Succeeded", output


def test_a_removed_pod_is_gone_from_its_service(kubectl: Kubectl, namespace: str) -> None:
    pod = restricted_pod("short", [PYTHON, "-c", ANSWERING], ANSWER="x")
    pod["metadata"]["labels"] = {"app": "short"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "short"},
        "spec": {"selector": {"app": "short"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    kubectl.create(pod, service, namespace=namespace)
    selector = "kubernetes.io/service-name=short"

    def addresses() -> list[str]:
        slices = kubectl.objects("endpointslices", namespace, selector=selector)
        return [address for each in slices for end in each["endpoints"] or [] for address in end["addresses"]]

    until(addresses, account=lambda: json.dumps(kubectl.objects("pods", namespace)))
    kubectl.delete("pod", "short", namespace)
    until(lambda: not addresses())


def restricted_pod(name: str, command: list[str], **environment: str) -> Json:
    """A pod of the project's image that the restricted profile allows; it runs once."""
    container = {
        "name": "main",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": command,
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "securityContext": {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    spec = {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
