"""`imaging up --workers`: which services run as several processes."""

from pathlib import Path

from imaging_services.local.configuration import SERVICES, StackConfiguration, port_names
from imaging_services.local.data_folder import DataFolder


def workers(folder: Path, count: int | None) -> dict[str, str | None]:
    data = DataFolder(folder)
    state = data.load()
    state.ports = {name: 20_000 + place for place, name in enumerate(port_names([]))}
    programs = StackConfiguration(data, state, None, (), count).service_programs()
    return {program.name: program.environment.get("WORKERS") for program in programs}


def test_those_that_receive_or_serve_images_do(tmp_path: Path) -> None:
    assert workers(tmp_path, 3) == {**dict.fromkeys(SERVICES, "3"), "event-processor": None}


def test_without_the_option_the_shell_decides(tmp_path: Path) -> None:
    assert workers(tmp_path, None) == dict.fromkeys(SERVICES)
