"""What the documents say is so: commands are run, options, components, make targets, variables and links exist."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
import typer
from pydicom.data import get_testdata_file

from imaging_operator.settings import OperatorSettings
from imaging_services.adapters.s3.settings import BucketSettings
from imaging_services.cli.__main__ import build
from imaging_services.cli.components import COMPONENTS, ROLES
from imaging_services.cli.target import TargetSettings
from support.stack import Stack, imaging_up

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples" / "README.md",
    ROOT / "examples" / "kubernetes" / "README.md",
    *(ROOT / "docs").glob("*.md"),
]
CHART = "tests/operator/test_chart_on_a_cluster.py"
# How each command of a code block is exercised: "run" here against a running stack, "make" as a dry run, or in the
# test that is named, where it takes longer or needs more.
COMMANDS = {
    "make up": "make",
    "make install": "make",
    "make check": "make",
    "make test": "make",
    "make test-operator": "make",
    "make test-cluster FORM=short": "make",
    "make bench": "make",
    "make bench-compare": "make",
    "make bench-growth": "make",
    "make bench-workers": "make",
    "make bench-docs": "make",
    ".venv/bin/imaging up --demo": "tests/e2e/test_up.py::test_the_demo_shows_every_step",
    ".venv/bin/imaging up": "tests/e2e/test_up.py::test_endpoints_crash_and_restart_of_the_whole",
    ".venv/bin/imaging send folder/of/files --to DIMSE@127.0.0.1:11112": "run",
    "storescu -aec DIMSE 127.0.0.1 11112 +sd folder/of/files": "run",
    "curl 'http://127.0.0.1:8080/dicomweb/studies?PatientName=*'": "run",
    "imaging dead-letters": "run",
    "imaging redrive --consumer NAME": "run",
    "imaging audit": "run",
    "imaging rebuild --dry-run": "run",
    "imaging stream 1.3.6.1.4.1.5962.1.2.1.20040119072730.12322 --from http://127.0.0.1:8080/wado/local": (
        "tests/integration/test_streaming_client.py::test_the_command_shows_times_and_writes_the_frames"
    ),
    "docker compose -f examples/on-premises/compose.yaml up -d": (
        "tests/integration/test_on_premises.py::test_the_edge_starts_from_its_file_while_the_hub_is_away"
    ),
    "imaging edge status": (
        "tests/integration/test_edge.py"
        "::test_nothing_is_lost_while_the_wan_is_away_whatever_dies_and_a_full_spool_says_so"
    ),
    "imaging run dimse-proxy --env-file examples/dimse-proxy.env": (
        "tests/integration/test_examples.py::test_the_component_starts_from_it"
    ),
    **dict.fromkeys(
        (
            "helm install imaging charts/imaging-ingestion -n imaging --create-namespace"
            " -f examples/kubernetes/trial-values.yaml",
            "helm upgrade imaging charts/imaging-ingestion -n imaging -f my-values.yaml",
            "helm uninstall imaging -n imaging",
        ),
        f"{CHART}::test_install_upgrade_uninstall",
    ),
    "helm test imaging -n imaging": "tests/charts/test_chart.py::test_helm_test_asks_every_server",
    "kubectl -n imaging apply -f examples/kubernetes/complete-system.yaml": (
        f"{CHART}::test_the_api_server_takes_every_example"
    ),
    "kubectl -n imaging get imaging": f"{CHART}::test_the_category_names_every_resource",
    "kubectl -n imaging delete imaging --all": f"{CHART}::test_the_category_names_every_resource",
}
EXPECTED = {
    ".venv/bin/imaging send": "3 of 3 instances stored at DIMSE",
    "curl": '"0020000D"',
    "imaging dead-letters": "no dead letters",
    "imaging redrive": "0 put back",
    "imaging audit": "nothing is wrong",
    "imaging rebuild": " instances recorded",
}
# Names that look like a variable.
NO_SETTINGS = {  # files in DIMSE_CONFIG_PATH, the Dockerfile's argument, where the tests find a cluster
    "IMAGE_CUIDS",
    "IMAGE_TSUIDS",
    "KNOWN_AES",
    "BASE_IMAGE",
    "KUBEBUILDER_ASSETS",
    "TEST_CLUSTER",
    "FUZZ_EXAMPLES",  # how long make fuzz takes
    "CHAOS_KILLS",  # of make chaos
    "CHAOS_SEED",
    "CHAOS_MINUTES",
    "SOAK_MINUTES",  # of make soak
    "BENCH_OPTIONS",  # of make bench
}


def documented_commands() -> list[str]:
    """Every command in a block marked as shell, without its comment."""
    blocks = [block for path in DOCUMENTS for block in re.findall(r"^```sh\n(.*?)^```", path.read_text(), re.M | re.S)]
    lines = [re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(filter(None, lines)))


def words_of_code(path: Path) -> list[str]:
    """Code spans and lines of code blocks."""
    text = path.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    return re.findall(r"`([^`\n]+)`", text) + [line for block in blocks for line in block.splitlines()]


def commands_of_the_program() -> dict[str, click.Command]:
    group = typer.main.get_command(build(["--help"]))
    return dict(group.commands)  # type: ignore[attr-defined]


def options_of(command: click.Command) -> set[str]:
    """Its own, and of a group those of its commands."""
    inner = getattr(command, "commands", {}).values()
    return {option for one in (command, *inner) for each in one.params for option in each.opts}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with imaging_up(tmp_path_factory.mktemp("documents")) as running:
        yield running


def test_every_command_in_a_code_block_has_its_test() -> None:
    assert set(documented_commands()) == set(COMMANDS)
    for place in COMMANDS.values():
        if "::" in place:
            file, _, test = place.partition("::")
            assert re.search(rf"def {test}\(", (ROOT / file).read_text()), place


@pytest.mark.parametrize("command", [command for command, how in COMMANDS.items() if how == "run"])
def test_the_command_does_what_it_says(command: str, stack: Stack, tmp_path: Path) -> None:
    files = tmp_path / "folder" / "of" / "files"
    files.mkdir(parents=True)
    for name in ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm"):
        (files / name).write_bytes(Path(str(get_testdata_file(name))).read_bytes())
    (tmp_path / "imaging-data").symlink_to(stack.ready_file.with_name("data"))
    (tmp_path / ".venv").symlink_to(BIN.parent)
    ports = {
        "11112": str(stack.ready["dimse_proxy"]["port"]),
        "8080": stack.url("dicomweb").split(":")[2].split("/")[0],
    }
    line = re.sub(r"\b(11112|8080)\b", lambda found: ports[found[0]], command)
    # /usr/bin first: a person's storescu is DCMTK's, not the program of the same name in the environment.
    environment = {**os.environ, "PATH": f"/usr/bin:/bin:{BIN}", "TCP_NODELAY": "1"}
    expected = next((text for beginning, text in EXPECTED.items() if command.startswith(beginning)), "")
    deadline = time.monotonic() + 30  # what was sent a moment ago may still be on its way through the queue
    while True:
        done = subprocess.run(
            ["/bin/bash", "-euc", line],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        if expected in done.stdout or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert expected in done.stdout
    if command.startswith("storescu"):
        assert done.stderr == ""


def test_make_targets_exist() -> None:
    named = {target for path in DOCUMENTS for code in words_of_code(path) for target in make_targets(code)}
    assert {"up", "install", "check", "test", "bench", "docs"} <= named
    for target in sorted(named):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (target, done.stderr)


def make_targets(code: str) -> list[str]:
    found = re.match(r"make ((?:[a-z-]+(?: |$))+)", code.strip())
    return found[1].split() if found else []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_options_and_components_exist(path: Path) -> None:
    commands = commands_of_the_program()
    options = {option for command in commands.values() for option in options_of(command)}
    for code in words_of_code(path):
        code = re.sub(r"\s+#.*", "", code)
        found = re.match(r"(?:\.venv/bin/)?imaging ([a-z][a-z-]*)(.*)", code)
        if found:
            assert found[1] in commands, code
            known = options_of(commands[found[1]]) | {"--help"}
            assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", found[2])) <= known, code
            component = re.match(r" ([a-z-]+)", found[2]) if found[1] == "run" else None
            assert component is None or component[1] in {*COMPONENTS, *ROLES}, code
        elif code.startswith("--"):
            assert code.split()[0].split("=")[0] in options | {"--help", "--version"}, code


def test_variables_in_the_documents_are_settings() -> None:
    known = set(BucketSettings.model_fields) | set(TargetSettings.model_fields) | NO_SETTINGS
    known |= set(OperatorSettings.model_fields)
    for package in COMPONENTS.values():
        for name, field in import_module(f"imaging_services.apps.{package}.settings").Settings.model_fields.items():
            known |= {name, *getattr(field.validation_alias, "choices", ())}
    for path in set(DOCUMENTS) - {ROOT / "docs" / "settings.md"}:
        spans = re.findall(r"`([^`\n]+)`", path.read_text())
        named = {name for span in spans for name in re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]*[A-Z0-9]\b", span)}
        assert named - known == set(), path.name


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CHANGELOG.md", *(ROOT / "docs" / "decisions").glob("*.md")])
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        file, _, anchor = target.partition("#")
        if "://" in target:
            continue
        place = (path.parent / file) if file else path
        assert place.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text(), re.M)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in headings}, target
