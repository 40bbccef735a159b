"""A record of what a person types and sees: run by a test, kept as a document."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cluster.images import ROOT


class Transcript:
    """Commands of a shell in the project's folder, with what they print.

    ``shown_as`` replaces what differs from machine to machine in the document, not in what is run.
    """

    def __init__(self, path: Path, environment: Mapping[str, str], shown_as: Mapping[str, str]) -> None:
        self.outputs: dict[str, str] = {}
        self._path = path
        self._environment = environment
        self._shown_as = shown_as
        self._parts: list[str] = []

    def say(self, text: str) -> None:
        """Prose."""
        self._parts.append(text)

    def run(self, command: str, *, seconds: float = 600, lines: int | None = None) -> str:
        """Run a command, which must succeed; all it prints. The document shows the first ``lines`` of it."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=ROOT,
            env=os.environ | dict(self._environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        self.outputs[command] = done.stdout
        self._show(command, done.stdout.rstrip().splitlines(), lines)
        return done.stdout

    def tell(self, *commands: str) -> None:
        """Commands that are not run here, because the cluster of the tests has no need of them."""
        self._show("\n$ ".join(commands), [], None)

    def _show(self, command: str, printed: list[str], lines: int | None) -> None:
        shown = printed if lines is None or len(printed) <= lines else [*printed[:lines], "..."]
        text = "\n".join([f"$ {command}", *shown])
        for real, instead in self._shown_as.items():
            text = text.replace(real, instead)
        text = "\n".join(line.rstrip() for line in text.splitlines())
        self._parts.append(f"```console\n{text}\n```")

    def check(self) -> None:
        """The document has just these words and commands; ``UPDATE_QUICKSTART=1`` writes it."""
        document = "\n\n".join(self._parts) + "\n"
        if os.environ.get("UPDATE_QUICKSTART"):
            self._path.write_text(document)
        assert _steps(self._path.read_text()) == _steps(document), "write it anew with UPDATE_QUICKSTART=1"


def _steps(document: str) -> list[str]:
    """Prose and commands, without what was printed, which is another each time."""
    prose = re.sub(r"^```console\n.*?^```", "", document, flags=re.MULTILINE | re.DOTALL)
    return [*filter(None, prose.splitlines()), *re.findall(r"^\$ .*$", document, re.MULTILINE)]
