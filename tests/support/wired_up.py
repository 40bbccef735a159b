"""``imaging up`` whose services talk to their servers through wires, and some of them twice: a program for tests.

``WIRED`` in the environment is a JSON document: ``wires`` maps ``nats``, ``wan`` (the proxy's way to NATS),
``postgres`` and ``s3`` to the ports that services get instead of the servers' own; ``twins`` maps a service to the port
of a second one like it; ``environment`` is for services only; ``nats_url`` takes the place of the server's own.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import replace

from imaging_services.cli.__main__ import main
from imaging_services.local import stack, supervisor
from imaging_services.local.configuration import StackConfiguration
from imaging_services.local.ports import free_ports
from imaging_services.local.processes import Program
from imaging_services.local.readiness import http_status

WIRED = json.loads(os.environ["WIRED"])
_PORT_OF = {"event-processor": "HTTP_PORT", "dimse-ingestion": "DIMSE_PORT"}
# The stack's services record their events themselves; so that each fault meets both ways, the twin hands its in.
_ONLY_TWINS = {"EVENTS_RECORDED_BY": "processor"}


class Wired(StackConfiguration):
    """The stack's configuration with other addresses in it."""

    def service_programs(self) -> list[Program]:
        """Each with its wires, and the twins at the end."""
        programs = [replace(one, environment=self._wired(one)) for one in super().service_programs()]
        by_name = {one.name: one for one in programs}
        return programs + [_twin(by_name[name], port) for name, port in WIRED["twins"].items()]

    def _wired(self, program: Program) -> Mapping[str, str]:
        wires, environment = WIRED["wires"], dict(program.environment)
        own = "wan" if program.name == "dimse-proxy" else "nats"
        for name in environment.keys() & {"EVENTS_NATS_URL", "DIMSE_NATS_URL"}:
            environment[name] = WIRED.get("nats_url") or f"nats://127.0.0.1:{wires[own]}"
        if "DB_PORT" in environment:
            environment["DB_PORT"] = str(wires["postgres"])
        return environment | WIRED["environment"]

    def _bucket_files(self) -> dict[str, str]:
        environment = super()._bucket_files()
        (self.folder.path / "config" / "bucket-config" / "BUCKET_PORT").write_text(str(WIRED["wires"]["s3"]))
        return environment


def _twin(program: Program, port: int) -> Program:
    (health,) = free_ports(1)
    assert program.log_file is not None
    return replace(
        program,
        name=f"{program.name}-2",
        log_file=program.log_file.with_stem(f"{program.name}-2"),
        ready=lambda: http_status(health, "/readyz") == 200,
        environment={
            **program.environment,
            **_ONLY_TWINS,
            "HEALTH_PORT": str(health),
            _PORT_OF[program.name]: str(port),
        },
    )


if __name__ == "__main__":
    supervisor.LONGEST_DELAY_SECONDS = 1.0  # what is killed on purpose should come back soon every time
    stack.StackConfiguration = Wired  # type: ignore[misc]
    main()
