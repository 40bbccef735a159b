"""From nothing to a study at its subscribers, as docs/quickstart-kubernetes.md shows it."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom.data import get_testdata_file

from cluster.images import ROOT
from cluster.kubectl import Kubectl, until
from cluster.system import AE_TITLE, DICOM_PORT, System
from cluster.transcript import Transcript
from imaging_services.local.ports import free_ports

DOCUMENT = ROOT / "docs" / "quickstart-kubernetes.md"
FILES = ("CT_small.dcm", "MR_small.dcm")
STUDIES = ("1.3.6.1.4.1.5962.1.2.1.20040119072730.12322", "1.3.6.1.4.1.5962.1.2.4.20040826185059.5457")
INSTANCE = (
    f"studies/{STUDIES[0]}/series/1.3.6.1.4.1.5962.1.3.1.1.20040119072730.12322"
    "/instances/1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
)
DOCUMENTED_PORT = 8080
INSTALL = (
    "helm install imaging charts/imaging-ingestion -n imaging --create-namespace"
    " -f examples/kubernetes/trial-values.yaml --wait"
)


@dataclass(frozen=True)
class Quickstart:
    """The system that it brought up, and what was seen on the way."""

    system: System
    transcript: Transcript
    folder: Path


@contextmanager
def quickstart(kubectl: Kubectl, helm: Path, address: str) -> Iterator[Quickstart]:
    """All of the document but its end, which takes the system away again (``uninstall``)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        for file in FILES:
            (folder / "images" / file).write_bytes(Path(str(get_testdata_file(file))).read_bytes())
        environment = {
            "KUBECONFIG": str(kubectl.kubeconfig),
            "PATH": f"{helm.parent}:{kubectl.program.parent}:{os.environ['PATH']}",
            "FOLDER": str(folder),
            "NODE": address,
            "TCP_NODELAY": "1",  # or each C-STORE of storescu waits 40 ms for a delayed acknowledgement
        }
        (port,) = free_ports(1)
        shown_as = {"$FOLDER/": "", str(folder): ".", address: "NODE", f":{port}": f":{DOCUMENTED_PORT}"}
        transcript = Transcript(DOCUMENT, environment, shown_as)
        system = System(kubectl, helm, address)
        _install(transcript, system)
        _send(transcript)
        _read_back(transcript, system, port)
        _see_events(transcript, system)
        yield Quickstart(system, transcript, folder)


def uninstall(transcript: Transcript, system: System) -> None:
    """The document's end."""
    transcript.say("## Take it away")
    transcript.run("kubectl -n imaging delete -f examples/kubernetes/complete-system.yaml --wait")
    transcript.run("helm uninstall imaging -n imaging --wait")
    transcript.say(
        "The definitions of the kinds stay, as the chart says; `kubectl delete crd` with their names removes them."
    )
    transcript.check()


def _install(transcript: Transcript, system: System) -> None:
    transcript.say(
        "# Quick start on Kubernetes\n\n"
        "A test made this page: it ran the commands from `helm install` on, and wrote down what they printed. You "
        "need\n`kubectl`, `helm` and the programs of DCMTK.\n\n"
        "## Images and a cluster\n\n"
        "The test builds the images without Docker and has a cluster of its own. With Docker and kind:"
    )
    transcript.tell(
        "docker build -t imaging-ingestion:0.1.0 .",
        "docker build --target trial -t imaging-ingestion-trial:0.1.0 .",
        "kind create cluster --name imaging --config examples/kubernetes/kind.yaml",
        "kind load docker-image --name imaging imaging-ingestion:0.1.0 imaging-ingestion-trial:0.1.0",
    )
    transcript.say("## Install\n\nThe operator, with NATS, PostgreSQL and S3 servers for a trial:")
    transcript.run(INSTALL, lines=5)
    transcript.run("kubectl -n imaging get pods")
    transcript.say("## A whole system\n\nProxy, ingestion, DICOMweb, event processor and two subscriptions:")
    transcript.run("kubectl -n imaging apply -f examples/kubernetes/complete-system.yaml")
    system.wait_ready()
    transcript.say("A moment later:")
    transcript.run("kubectl -n imaging get imaging")


def _send(transcript: Transcript) -> None:
    transcript.say(
        "## Send\n\n`NODE` is the node's address, at which the example publishes the proxy; with kind and the\n"
        "example's `kind.yaml` it is `127.0.0.1`, and the port is 11112."
    )
    transcript.run(f"storescu -v -aec {AE_TITLE} $NODE {DICOM_PORT} +sd $FOLDER/images")


def _read_back(transcript: Transcript, system: System, port: int) -> None:
    for study in STUDIES:
        system.wait_stored(study, [_instance_of(study)])
    transcript.say(
        "## See it arrive\n\nQIDO-RS and WADO-RS, through `kubectl -n imaging port-forward service/north-wado 8080:80`:"
    )
    base = f"http://127.0.0.1:{port}/wado-rs"
    with system.forwarded("north-wado", port):
        transcript.run(f"curl -s '{base}/studies?PatientID=1CT1' | python3 -m json.tool", lines=12)
        transcript.run(f"curl -s -H 'Accept: application/dicom' {base}/{INSTANCE} -o $FOLDER/back.dcm")
    transcript.run("dcmdump +P PatientName +P SOPInstanceUID +P Rows +P Columns $FOLDER/back.dcm")


def _instance_of(study: str) -> str:
    return {
        STUDIES[0]: INSTANCE.rpartition("/")[2],
        STUDIES[1]: "1.3.6.1.4.1.5962.1.1.4.1.1.20040826185059.5457",
    }[study]


def _see_events(transcript: Transcript, system: System) -> None:
    transcript.say(
        "Each instance was announced to the subscriber; and when its study had been quiet for ten seconds, so was the\n"
        "study:"
    )
    until(lambda: len(system.announced()) >= 2 * len(STUDIES), 120, lambda: str(system.announced()))
    transcript.run("kubectl -n imaging logs deployment/subscriber")


def ready_column(shown: str) -> list[str]:
    """The READY column of ``kubectl get imaging``."""
    return re.findall(r"^\S+\.imaging-ingestion\.alvearie\.org/\S+\s+(\S+)", shown, re.MULTILINE)
