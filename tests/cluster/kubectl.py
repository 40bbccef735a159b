"""``kubectl`` for tests: plain functions over objects as dicts, and waiting for conditions instead of sleeping."""

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class KubectlError(Exception):
    """kubectl said no; the message is what it said."""


class Kubectl:
    """A cluster as a person with a kubeconfig sees it."""

    def __init__(self, program: Path, kubeconfig: Path, *, context: str = "") -> None:
        self.program = program
        self.kubeconfig = kubeconfig
        self._options = [f"--context={context}"] if context else []

    def __call__(self, *arguments: str | Path, stdin: str | None = None, seconds: float = 120) -> str:
        """Standard output of a command; raises ``KubectlError`` with what it wrote to standard error."""
        done = subprocess.run(
            [str(self.program), *self._options, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig)},
        )
        if done.returncode:
            raise KubectlError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def apply(self, *objects: Json, namespace: str = "") -> None:
        """Server-side apply of objects."""
        self("apply", "--server-side", "--force-conflicts", *_in(namespace), "-f", "-", stdin=_as_list(objects))

    def create(self, *objects: Json, namespace: str = "") -> None:
        """Create objects; fails when one exists."""
        self("create", *_in(namespace), "-f", "-", stdin=_as_list(objects))

    def get(self, kind: str, name: str, namespace: str = "") -> Json | None:
        """The object as the API server returns it; None when there is none."""
        shown = self("get", kind, name, *_in(namespace), "--ignore-not-found", "-o", "json")
        return json.loads(shown) if shown.strip() else None

    def objects(self, kinds: str, namespace: str = "", *, selector: str = "") -> list[Json]:
        """Objects of one or more kinds (``deployments,services``); of all namespaces when none is given."""
        where = _in(namespace) or ["--all-namespaces"]
        chosen = ["-l", selector] if selector else []
        return list(json.loads(self("get", kinds, *where, *chosen, "-o", "json"))["items"])

    def patch(self, kind: str, name: str, change: Json, namespace: str = "", *, subresource: str = "") -> None:
        """JSON merge patch."""
        part = [f"--subresource={subresource}"] if subresource else []
        self("patch", kind, name, *_in(namespace), *part, "--type=merge", "-p", json.dumps(change))

    def delete(self, kind: str, name: str, namespace: str = "", *, wait: bool = True) -> None:
        """Delete; ``wait`` until it is gone, finalizers included."""
        self(
            "delete", kind, name, *_in(namespace), "--ignore-not-found", f"--wait={str(wait).lower()}", "--timeout=110s"
        )

    def wait_for(
        self,
        condition: Callable[[Json], object],
        kind: str,
        name: str,
        namespace: str = "",
        *,
        seconds: float = 120,
    ) -> Json:
        """The object, once ``condition(object)`` is true; the last state is in the error."""
        seen: Json | None = None

        def holds() -> bool:
            nonlocal seen
            seen = self.get(kind, name, namespace)
            return seen is not None and bool(condition(seen))

        until(holds, seconds, lambda: f"{kind} {name}: {json.dumps(seen, indent=1)}")
        assert seen is not None
        return seen

    def wait_gone(self, kind: str, name: str, namespace: str = "", *, seconds: float = 120) -> None:
        """Until the object is no more."""
        until(lambda: self.get(kind, name, namespace) is None, seconds, lambda: f"{kind} {name} is still there")

    def new_namespace(self, prefix: str = "test") -> str:
        """A namespace that did not exist before, in which pods may run (its service account is there)."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        self("create", "namespace", name)
        self.wait_for(bool, "serviceaccount", "default", name)
        return name


def until(condition: Callable[[], object], seconds: float = 120, account: Callable[[], str] = str) -> None:
    """Until the condition holds; ``account()`` says in the error how things stood."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after {seconds:.0f} s: {account()}")
        time.sleep(0.1)


def _in(namespace: str) -> list[str]:
    return ["-n", namespace] if namespace else []


def _as_list(objects: Iterable[Json]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
