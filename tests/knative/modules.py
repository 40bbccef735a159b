"""The Go modules of Knative: their folders, and the programs compiled from them.

``go/*/go.mod`` and ``go.sum`` say exactly what is fetched and compiled. Programs and images are kept in a cache; the
first build takes about four minutes on two cores.
"""

import hashlib
import json
import os
import re
import subprocess
import time
from functools import cache
from pathlib import Path

from cluster.errors import ClusterError
from cluster.programs import CACHE, go_command

GO = Path(__file__).parent / "go"
PROGRAMS = {
    "eventing": (
        "knative.dev/eventing/cmd/controller",
        "knative.dev/eventing/cmd/webhook",
        "knative.dev/eventing/cmd/mtchannel_broker",
        "knative.dev/eventing/cmd/broker/ingress",
        "knative.dev/eventing/cmd/broker/filter",
        "knative.dev/eventing/cmd/in_memory/channel_controller",
        "knative.dev/eventing/cmd/in_memory/channel_dispatcher",
    ),
    "serving": (
        "knative.dev/serving/cmd/controller",
        "knative.dev/serving/cmd/webhook",
        "knative.dev/serving/cmd/activator",
        "knative.dev/serving/cmd/autoscaler",
        "knative.dev/serving/cmd/queue",
        "./cmd/local-ingress",
    ),
}
"""Go packages by the folder of ``go`` that compiles them."""
_ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=readonly", "GOTOOLCHAIN": "auto"}


@cache
def module_folder(path: str) -> Path:
    """Where Go keeps the module's files; fetched when it is not there yet, and checked against ``go.sum``."""
    for go_mod in sorted(GO.glob("*/go.mod")):
        if pinned := re.search(rf"^\s+{re.escape(path)} (v\S+)", go_mod.read_text(), re.MULTILINE):
            command = [*go_command(), "mod", "download", "-json", f"{path}@{pinned[1]}"]
            done = _run(command, go_mod.parent, seconds=300)
            return Path(json.loads(done.stdout)["Dir"])
    raise ClusterError(f"no go.mod of tests/knative/go pins {path}")


def program(package: str) -> Path:
    """The compiled program of a Go package of ``PROGRAMS``."""
    return next(_folder(module) for module, all_ in PROGRAMS.items() if package in all_) / package.rpartition("/")[2]


def build() -> None:
    """Compile what is missing or was compiled from something else."""
    for module, packages in PROGRAMS.items():
        folder, stamp = _folder(module), _stamp(module)
        if (folder / ".stamp").exists() and (folder / ".stamp").read_text() == stamp:
            continue
        print(f"building {', '.join(packages)}", flush=True)
        begun = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        for package in packages:
            program(package).unlink(missing_ok=True)
        command = ["nice", "-n", "5", *go_command(), "build", "-ldflags", "-s -w", "-o", f"{folder}{os.sep}", *packages]
        _run(command, GO / module, seconds=3600)
        (folder / ".stamp").write_text(stamp)
        print(f"built in {time.monotonic() - begun:.0f} s", flush=True)


def _folder(module: str) -> Path:
    return CACHE / "knative" / "bin" / module


def _stamp(module: str) -> str:
    sources = [GO / module / "go.mod", GO / module / "go.sum", *sorted((GO / module).rglob("*.go"))]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()


def _run(command: list[str], folder: Path, *, seconds: float) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | _ENVIRONMENT
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        raise ClusterError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return done
