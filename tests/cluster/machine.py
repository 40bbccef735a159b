"""What a node changes on this machine: packages it needs, a lock, a bridge, mounts, rules, control groups."""

import contextlib
import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import IO

from cluster.errors import ClusterError

# Debian's package for each program of the system that a node needs.
PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "nft": "nftables",
    "ip": "iproute2",
    "openssl": "openssl",
}
# Packets must pass from pod to pod, and there an answer must meet the address translation too.
_SWITCHES = (Path("/proc/sys/net/ipv4/ip_forward"), Path("/proc/sys/net/bridge/bridge-nf-call-iptables"))


def require_system() -> None:
    """Raises ``ClusterError`` naming what is missing."""
    if os.geteuid() != 0:
        raise ClusterError("a node needs root")
    missing = sorted({package for program, package in PACKAGES.items() if not shutil.which(program)})
    if missing:
        raise ClusterError(f"install {' '.join(missing)}")


def lock(folder: Path) -> IO[str]:
    """The right to have the one cluster of this machine, until the file is closed; waits for it."""
    folder.mkdir(parents=True, exist_ok=True)
    held = (folder / "lock").open("w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("waiting for another session that uses this machine's cluster", flush=True)
        fcntl.flock(held, fcntl.LOCK_EX)
    return held


def bridge_up(bridge: str, address: str, folder: Path) -> None:
    """A bridge of this address; what the kernel's switches were before is kept in ``folder``."""
    commands = (
        ("ip", "link", "add", bridge, "type", "bridge"),
        ("ip", "address", "replace", f"{address}/24", "dev", bridge),
        ("ip", "link", "set", bridge, "up"),
    )
    for command in commands:
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    for switch in filter(Path.exists, _SWITCHES):
        (folder / switch.name).write_text(switch.read_text())
        switch.write_text("1")


def bridge_down(bridge: str, folder: Path) -> None:
    """The bridge away, the rules of kube-proxy away, the switches as they were; all also after a crash."""
    for family in ("ip", "ip6"):
        quietly("nft", "delete", "table", family, "kube-proxy")
    quietly("ip", "link", "delete", bridge)
    for switch in _SWITCHES:
        if (folder / switch.name).exists():
            switch.write_text((folder / switch.name).read_text())


def unmount_below(folder: Path) -> None:
    """Whatever is mounted below the folder."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{folder}/")), reverse=True):
        quietly("umount", "-l", mount)


def remove_groups() -> None:
    """The control groups of pods; one that still has processes is somebody else's, and stays."""
    found = [Path(inner) for group in Path("/sys/fs/cgroup").glob("**/kubepods*/") for inner, _, _ in os.walk(group)]
    for group in sorted(set(found), key=lambda path: -len(path.parts)):
        with contextlib.suppress(OSError):
            group.rmdir()


def quietly(*command: str) -> bool:
    """True when the command succeeds."""
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
