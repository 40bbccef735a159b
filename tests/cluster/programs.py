"""The programs of a cluster: from ``KUBEBUILDER_ASSETS``, else built from pinned Go modules and kept in a cache.

``go/kubernetes`` and ``go/tools`` are the modules; their go.mod and go.sum say exactly what is compiled. The first
build takes about eight minutes on two cores, the next run nothing.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from cluster.errors import ClusterError

GO = Path(__file__).parent / "go"
CACHE = Path(os.environ.get("IMAGING_CLUSTER_DIR") or Path.home() / ".cache" / "imaging-cluster").absolute()
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
NODE = ("kube-scheduler", "kubelet", "kube-proxy", "pause", "empty-node", "coredns", "helm")
ENOUGH_GO = (1, 24)
# A Go that is too old to fetch a newer one by itself fetches this module, which is the Go distribution.
TOOLCHAIN = "golang.org/toolchain@v0.0.1-go1.24.6.linux-amd64"

_PACKAGES = {
    "coredns": ("tools", "./cmd/coredns"),
    "helm": ("tools", "helm.sh/helm/v3/cmd/helm"),
    "etcd": ("kubernetes", "./cmd/etcd"),
    "pause": ("kubernetes", "./cmd/pause"),
    "empty-node": ("kubernetes", "./cmd/empty-node"),
}


def programs(names: Iterable[str]) -> dict[str, Path]:
    """The path of each program; builds what is missing, one build at a time on a machine."""
    assets = Path(os.environ.get("KUBEBUILDER_ASSETS") or "/nonexistent")
    found = {name: assets / name for name in names if os.access(assets / name, os.X_OK)}
    wanted = [name for name in names if name not in found]
    folder = CACHE / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(CACHE / "build.lock"):
        for module in ("kubernetes", "tools"):
            missing = [name for name in wanted if _package(name)[0] == module and not _is_built(name)]
            if missing:
                _build(module, missing)
    return found | {name: folder / name for name in wanted}


def version(module: str) -> str:
    """The pinned version of a Go module, such as ``v1.34.4`` of ``k8s.io/kubernetes``."""
    for go_mod in sorted(GO.glob("*/go.mod")):
        if pinned := re.search(rf"^\s+{re.escape(module)} (v\S+)", go_mod.read_text(), re.MULTILINE):
            return pinned[1]
    raise ClusterError(f"no go.mod of tests/cluster/go pins {module}")


def _package(name: str) -> tuple[str, str]:
    return _PACKAGES.get(name, ("kubernetes", f"k8s.io/kubernetes/cmd/{name}"))


def _is_built(name: str) -> bool:
    stamp = CACHE / "bin" / f".{name}"
    return os.access(CACHE / "bin" / name, os.X_OK) and stamp.exists() and stamp.read_text() == _stamp(name)


@cache
def _stamp(name: str) -> str:
    """Changes when the program has to be built anew."""
    module, package = _package(name)
    sources = [GO / module / "go.mod", GO / module / "go.sum"]
    sources += sorted((GO / module / package).glob("*.go")) if package.startswith(".") else []
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()


def _build(module: str, names: list[str]) -> None:
    print(f"building {', '.join(names)} from tests/cluster/go/{module}", flush=True)
    begun = time.monotonic()
    command = ["nice", "-n", "5", *go_command(), "build", "-ldflags", _linker_flags()]
    for path in (CACHE / "bin" / name for name in names):
        path.unlink(missing_ok=True)  # a running program's file must not be written to
    packages = [_package(name)[1] for name in names]
    environment = _go_environment() | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=readonly"}
    done = subprocess.run(
        [*command, "-o", f"{CACHE / 'bin'}{os.sep}", *packages], cwd=GO / module, env=environment, check=False
    )
    if done.returncode:
        raise ClusterError(f"go build of {', '.join(names)} failed; its output is above")
    for name in names:
        (CACHE / "bin" / f".{name}").write_text(_stamp(name))
    print(f"built {', '.join(names)} in {time.monotonic() - begun:.0f} s", flush=True)


def _linker_flags() -> str:
    """No debug tables; and the versions, which these programs learn from the linker (charts check ``kubeVersion``)."""
    kubernetes, helm = version("k8s.io/kubernetes"), version("helm.sh/helm/v3")
    base = "k8s.io/component-base/version"
    values = {
        f"{base}.gitVersion": kubernetes,
        f"{base}.gitMajor": "1",
        f"{base}.gitMinor": kubernetes.split(".")[1],
        f"{base}.gitTreeState": "clean",
        "k8s.io/client-go/pkg/version.gitVersion": kubernetes,
        "helm.sh/helm/v3/internal/version.version": helm,
    }
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in values.items())])


@cache
def go_command() -> tuple[str, ...]:
    """A Go that can build the modules: the installed one, or the one that it fetches as a module."""
    go = shutil.which("go")
    if go is None:
        raise ClusterError("no Go: install it (Debian: golang-go), or name built programs in KUBEBUILDER_ASSETS")
    if _go_version(go) >= (1, 21):  # an older one is replaced by itself: GOTOOLCHAIN
        return (go,)
    shown = subprocess.run([go, "mod", "download", "-json", TOOLCHAIN], cwd="/", capture_output=True, check=True)
    fetched = Path(re.search(r'"Dir": "(.*)"', shown.stdout.decode())[1])  # type: ignore[index]
    own = CACHE / fetched.name
    if not own.exists():  # the module cache is read-only and has lost the executable bits
        partial = own.with_name(f"{own.name}.{os.getpid()}")
        shutil.copytree(fetched, partial, copy_function=shutil.copyfile)
        for program in (*(partial / "bin").iterdir(), *(partial / "pkg" / "tool").glob("*/*")):
            program.chmod(0o755)
        partial.rename(own)
    return (str(own / "bin" / "go"),)


def _go_version(go: str) -> tuple[int, ...]:
    shown = subprocess.run([go, "version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"go(\d+)\.(\d+)", shown)
    return tuple(int(part) for part in found.groups()) if found else (0,)


def _go_environment() -> Mapping[str, str]:
    environment = dict(os.environ)
    if _go_version(go_command()[0]) < ENOUGH_GO:
        environment["GOTOOLCHAIN"] = "auto"
    return environment


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
