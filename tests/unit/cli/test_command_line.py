"""The imaging command: errors are one line, help is complete."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from imaging_services.cli.__main__ import build

IMAGING = Path(sys.executable).with_name("imaging")
COMMANDS = ("up", "send", "backend", "run", "doctor", "audit", "rebuild", "dead-letters", "redrive")


def imaging(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": "/usr/bin:/bin", **environment}
    return subprocess.run([IMAGING, *arguments], capture_output=True, text=True, check=False, env=clean, cwd="/")


def test_help_names_every_command() -> None:
    shown = CliRunner().invoke(build(["--help"]), ["--help"])
    assert shown.exit_code == 0
    for command in COMMANDS:
        assert f" {command} " in shown.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    shown = CliRunner().invoke(build([command]), [command, "--help"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.output


def test_version() -> None:
    done = imaging("--version")
    assert (done.returncode, done.stdout) == (0, "imaging 0.1.0\n")


def test_unknown_component_is_one_line() -> None:
    done = imaging("run", "dimse-prozy")
    assert done.returncode == 2
    assert done.stderr.startswith("imaging: there is no component 'dimse-prozy': use one of dimse-proxy, ")
    assert done.stderr.count("\n") == 1


def test_wrong_settings_are_one_line_that_names_the_variable() -> None:
    done = imaging("run", "dimse-proxy", DIMSE_PORT="eleven")
    assert done.returncode == 2
    assert "DIMSE_PORT" in done.stderr
    assert done.stderr.count("\n") == 1


def test_dead_letters_without_a_target_say_what_to_give() -> None:
    done = imaging("dead-letters")
    assert done.returncode == 2
    assert "give --data-dir, or set EVENTS_NATS_URL" in done.stderr


@pytest.mark.parametrize("command", ["audit", "rebuild"])
def test_a_space_has_to_be_named(command: str) -> None:
    done = imaging(command)
    assert done.returncode == 2
    assert "which storage space? give --data-dir, or set BUCKET_CONFIG_PATH" in done.stderr
    assert done.stderr.count("\n") == 1


def test_doctor_of_a_folder_that_is_no_stack(tmp_path: Path) -> None:
    done = imaging("doctor", "--data-dir", str(tmp_path))
    assert done.returncode == 1
    assert "is not the data folder of a local stack" in done.stdout


def test_doctor_says_what_does_not_answer() -> None:
    done = imaging(
        "doctor",
        EVENTS_NATS_URL="nats://127.0.0.1:1",
        DB_HOST="127.0.0.1",
        DB_PORT="1",
        DB_NAME="x",
        DB_USER="x",
        DB_PASS="secret-word",
    )
    assert done.returncode == 1
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert "✗ events NATS" in lines
    assert "✗ PostgreSQL" in lines
    assert "not configured here" in lines["- storage space"]
    assert "secret-word" not in done.stdout + done.stderr
