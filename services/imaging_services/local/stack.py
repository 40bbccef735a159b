"""The whole product on this machine: servers and services under one supervisor."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from imaging_services.adapters.s3.administration import ensure_bucket
from imaging_services.domain.errors import SettingsError
from imaging_services.local.bindings import Binding, instance_binding, study_binding
from imaging_services.local.bundled import check_bundled
from imaging_services.local.configuration import (
    DATABASE,
    DEFAULT_PORTS,
    StackConfiguration,
    Subscriber,
    port_names,
)
from imaging_services.local.data_folder import DataFolder, write_private
from imaging_services.local.ports import choose_ports
from imaging_services.local.supervisor import Stage, Supervisor


@dataclass(frozen=True)
class StackOptions:
    """What the user asks of ``imaging up``."""

    data_dir: Path
    ports: Literal["auto", "default"] = "default"
    ready_file: Path | None = None
    instance_bindings: tuple[str, ...] = ()
    study_bindings: tuple[str, ...] = ()
    demo_webhook: str | None = None
    revisioning_delay: float | None = None
    name: str | None = None
    workers: int | None = None


@dataclass
class LocalStack:
    """Runs one stack until told to stop.

    ``report`` gets texts for people; ``stop`` ends the run.
    """

    options: StackOptions
    report: Callable[[str], None]
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, ready: Callable[[StackConfiguration], Awaitable[None]]) -> None:
        """Start, call ``ready`` when every service takes work, keep running until ``stop``.

        Raises ``SettingsError`` (a server not installed, folder in use, port taken, wrong URL) or
        ``BackendUnavailable`` (something does not start); nothing is left running then.
        """
        check_bundled()
        subscribers = _subscribers(self.options)
        folder = DataFolder(self.options.data_dir)
        with folder.locked():
            for name in await asyncio.to_thread(folder.end_leftovers):
                self.report(f"{name} of an earlier run was still there and was stopped")
            configuration = _configure(folder, self.options, subscribers)
            await self._supervise(configuration, ready)

    async def _supervise(
        self, configuration: StackConfiguration, ready: Callable[[StackConfiguration], Awaitable[None]]
    ) -> None:
        ready_file = self.options.ready_file
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
        announced = False

        def changed(pids: dict[str, int]) -> None:
            configuration.folder.remember(pids)
            if ready_file is not None and announced and pids:
                _write_ready(ready_file, configuration, pids)

        async def when_ready() -> None:
            nonlocal announced
            announced = True
            changed(supervisor.pids)
            await ready(configuration)

        supervisor = Supervisor(_stages(configuration), changed, self.report)
        try:
            await supervisor.run(when_ready, self.stop)
        finally:
            if ready_file is not None:
                ready_file.unlink(missing_ok=True)


def _stages(configuration: StackConfiguration) -> list[Stage]:
    nats, postgres, s3 = configuration.nats, configuration.postgres, configuration.s3
    programs = {program.name: program for program in configuration.service_programs()}
    # Each stage hands its work to the one before, so it has drained before that stops.
    processor, proxy = programs.pop("event-processor"), programs.pop("dimse-proxy")

    def create_stores() -> None:
        postgres.create_database(DATABASE)
        s3.sync_writes()
        ensure_bucket(configuration.bucket)

    return [
        Stage(lambda: [nats.program(), postgres.program(), s3.program()], create_stores),
        Stage(lambda: [processor]),
        Stage(lambda: list(programs.values()), then_at_once=True),
        Stage(lambda: [proxy]),
    ]


def _configure(folder: DataFolder, options: StackOptions, subscribers: list[Subscriber]) -> StackConfiguration:
    state = folder.load()
    if options.name is not None and state.ports and options.name != state.name:
        raise SettingsError(f"{folder.path} belongs to {state.name!r}: its images are recorded under that name")
    state.name = options.name or state.name
    wanted = DEFAULT_PORTS if options.ports == "default" else {}
    state.ports = choose_ports(port_names(subscribers), wanted, state.ports)
    folder.save(state)
    return StackConfiguration(folder, state, options.revisioning_delay, tuple(subscribers), options.workers)


def _subscribers(options: StackOptions) -> list[Subscriber]:
    """A service for each. What a target has had is remembered under its address, so the order may change."""
    bindings = [instance_binding(target) for target in options.instance_bindings]
    bindings += [study_binding(target) for target in options.study_bindings]
    counts: Counter[str] = Counter()
    subscribers = []
    for binding in bindings:
        counts[binding.component] += 1
        subscribers.append(Subscriber(f"{binding.component}-{counts[binding.component]}", binding))
    if options.demo_webhook is not None:
        for component in ("instance-binding", "study-binding"):
            name = f"demo-{component}"  # the webhook's port differs from run to run, the consumer must not
            keys = {"WEBHOOK_ENDPOINT": options.demo_webhook, "BINDING_NAME": name}
            subscribers.append(Subscriber(name, Binding(component, keys)))
    return subscribers


def _write_ready(path: Path, configuration: StackConfiguration, pids: dict[str, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, json.dumps({**configuration.endpoints(), "pids": pids}, indent=2) + "\n")
