"""``imaging audit`` and ``imaging rebuild`` as they are run: settings of the services, files, exit codes."""

import asyncio
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from imaging_services.apps.event_driven_ingestion import main as processor
from imaging_services.apps.event_driven_ingestion.settings import Settings as ProcessorSettings
from support.archive import PROVIDER, archive, opened_space
from support.instances import instance
from support.ports import a_free_port
from support.servers import Postgres, fresh_database
from support.services import running

IMAGING = str(Path(sys.executable).with_name("imaging"))


def imaging(folder: Path, variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    file = folder / "variables.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    clean = {"PATH": os.environ["PATH"], "TMPDIR": str(folder)}
    command = [IMAGING, *arguments, "--env-file", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean, cwd=folder, timeout=120)
    print(done.stdout, done.stderr)  # what pytest shows when the test fails
    return done


def database_variables(database: Any) -> dict[str, str]:
    return {
        "DB_HOST": database.host,
        "DB_PORT": str(database.port),
        "DB_NAME": database.name,
        "DB_USER": database.user,
        "DB_PASS": database.password,
    }


async def test_a_space_is_audited_repaired_and_rebuilt(
    request: Any, nats_server: Any, database: Any, postgres_server: Postgres, tmp_path: Path
) -> None:
    events = {"EVENTS_NATS_URL": nats_server.url, "EVENTS_NATS_SUBJECT_ROOT": f"t{uuid.uuid4().hex}"}
    events["EVENTS_STREAM"] = uuid.uuid4().hex
    variables = {
        **events,
        **database_variables(database),
        "BUCKET_CONFIG_PATH": str(tmp_path / "bucket"),
        "PROVIDER_NAME": PROVIDER,
    }
    report = tmp_path / "report.jsonl"
    settings = ProcessorSettings(**events, **database_variables(database), HTTP_PORT=a_free_port())
    async with (
        archive(database, opened_space("s3", request, tmp_path)) as there,
        running(processor.main, settings),
    ):
        keys = sorted([(await there.store(instance(), recorded=False)).key for _ in range(3)])
        audit = "audit", "--full", "--grace", "0", "--json", str(report)
        done = await asyncio.to_thread(imaging, tmp_path, variables, *audit, "--repair")
        assert (done.returncode, done.stderr) == (1, "")
        assert "wrong: 3 unknown; 3 repaired\n" in done.stdout
        *found, last = map(json.loads, report.read_text().splitlines())
        assert sorted(one["key"] for one in found) == keys
        assert {(one["kind"], one["repaired"]) for one in found} == {("unknown", "recorded")}
        assert (last["complete"], last["summary"]["position"]) == (True, keys[-1])
        with fresh_database(postgres_server) as other:
            rebuilt = {**variables, **database_variables(other)}
            await there.space.put("0" * 64 + ".dcm", b"junk")
            done = await asyncio.to_thread(imaging, tmp_path, rebuilt, "rebuild", "--json", str(report))
            assert (done.returncode, done.stderr) == (1, "")
            assert "3 of 4 objects read, 3 instances recorded" in done.stdout
            failed, last = map(json.loads, report.read_text().splitlines())
            assert failed["key"] == "0" * 64 + ".dcm"
            assert (last["summary"]["recorded"], last["complete"]) == (3, True)
        done = await asyncio.to_thread(imaging, tmp_path, variables, *audit, "--from", "0" * 64 + ".dcm")
        assert (done.returncode, done.stderr) == (0, "")
        assert "3 objects; in order: 3 instances\n" in done.stdout
        assert done.stdout.endswith("nothing is wrong\n")
