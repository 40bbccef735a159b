"""Container images without a registry: a base image from Debian packages, the project's from its Dockerfile."""

import configparser
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError
from cluster.programs import CACHE

ROOT = Path(__file__).parents[2]
# The names of the examples, in full.
IMAGE = "imaging-ingestion:0.1.0"
TRIAL_IMAGE = "imaging-ingestion-trial:0.1.0"
ARCHIVES = {IMAGE: CACHE / "images" / "production.tar", TRIAL_IMAGE: CACHE / "images" / "trial.tar"}
BASE = "localhost/python-base:1"
BASE_PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates")
MOST_LAYERS = 150
# Debian's package for each program of the system that building an image needs.
PACKAGES = {"buildah": "buildah", "crun": "crun", "mmdebstrap": "mmdebstrap"}
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_STORE = ("--root", CACHE / "images" / "store", "--runroot", CACHE / "images" / "run")


def build(name: str, archive: Path, *, target: str = "") -> None:
    """Build the project's Dockerfile on a base image made here, and write the image as a docker archive."""
    missing = sorted({package for program, package in PACKAGES.items() if not shutil.which(program)})
    if missing:
        raise ClusterError(f"install {' '.join(missing)}")
    _prune()
    _base_image()
    with tempfile.TemporaryDirectory() as folder:
        mounts = [f"{_certificates()}:{_CERTIFICATES}:ro", f"{_pip_configuration(Path(folder))}:/etc/pip.conf:ro"]
        _buildah(
            *("build", "--isolation=chroot", "--network=host", "--pull=false", "--layers"),
            *(f"--volume={mount}" for mount in mounts),  # for the build only: an empty /etc/pip.conf is what stays
            *([f"--target={target}"] if target else []),
            *(f"--build-arg=BASE_IMAGE={BASE}", f"--tag={name}", ROOT),
        )
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.unlink(missing_ok=True)
    _buildah("push", "--quiet", name, f"docker-archive:{archive}:{name}")


def one_program(archive: Path, name: str, program: Path) -> None:
    """An image that holds one static program and runs it."""
    layer = archive.with_suffix(".layer")
    with tarfile.open(layer, "w") as content:
        content.add(program, program.name, filter=_as_root)
    one_layer(archive, name, layer, {"Entrypoint": [f"/{program.name}"]})
    layer.unlink()


def one_layer(archive: Path, name: str, layer: Path, configuration: dict[str, Any]) -> None:
    """A docker archive of one uncompressed layer."""
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    image = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": configuration,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "tests/cluster"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive, "w") as content:
        for file, value in (("config.json", image), ("manifest.json", manifest)):
            (Path(folder) / file).write_text(json.dumps(value))
            content.add(Path(folder) / file, file)
        content.add(layer, "layer.tar")


def _prune() -> None:
    """Layers of earlier builds make the next one quick, and fill the disk: now and then begin anew."""
    command = ["buildah", *map(str, _STORE), "images", "--all", "--quiet"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    if len(listed.split()) > MOST_LAYERS:
        _buildah("rmi", "--prune", "--force")


def _base_image() -> None:
    """Debian with Python, of the release that runs here; made once."""
    known = subprocess.run(["buildah", *map(str, _STORE), "images", "-q", BASE], capture_output=True, check=False)
    if known.returncode == 0:
        return
    print(f"making {BASE} from Debian packages", flush=True)
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    with tempfile.TemporaryDirectory() as folder:
        layer, archive = Path(folder) / "layer.tar", Path(folder) / "image.tar"
        without = (f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("man", "locale", "doc"))
        _run(
            *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(BASE_PACKAGES)}", *without),
            *("--aptopt=Apt::Install-Recommends false", release["VERSION_CODENAME"], layer),
        )
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        one_layer(archive, BASE, layer, {"Cmd": ["python3"], "Env": [path]})
        _buildah("pull", "--quiet", f"docker-archive:{archive}")


def _certificates() -> str:
    """What this machine trusts: packages may come through a proxy with a certificate of its own."""
    return os.environ.get("SSL_CERT_FILE") or _CERTIFICATES


def _pip_configuration(folder: Path) -> Path:
    """How pip finds packages on this machine; of its paths only the certificates' is there in the image."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    options = {"cert": _CERTIFICATES}
    for line in shown.splitlines():
        name, _, value = line.partition("=")
        option = name.rpartition(".")[2]
        if option in ("index-url", "extra-index-url", "trusted-host", "proxy", "default-timeout", "retries"):
            options[option] = value.strip("'")
    parser = configparser.RawConfigParser()
    parser["global"] = options
    path = folder / "pip.conf"
    with path.open("w") as file:
        parser.write(file)
    path.chmod(0o644)
    return path


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755
    return entry


def _buildah(*arguments: str | Path) -> None:
    _run("buildah", *_STORE, *arguments)


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        raise ClusterError(f"{command[0]} failed:\n{(done.stdout + done.stderr)[-4000:]}")
