"""``imaging run event-bridge`` as a process: the start that is refused, and the start that is given up."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from support.ports import a_free_port

_IMAGING = str(Path(sys.executable).parent / "imaging")


def _environment(**settings: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "K_SINK": "http://127.0.0.1:1/", "BRIDGE_ROLE": "edge", **settings}


def test_a_missing_setting_is_one_sentence() -> None:
    environment = _environment(NATS_URL="nats://127.0.0.1:1")
    done = subprocess.run(
        [_IMAGING, "run", "event-bridge"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "imaging: EDGE_MAILBOX_ID is not set: an edge needs the id of its mailbox"


def test_a_bridge_that_waits_for_nats_can_be_stopped() -> None:
    environment = _environment(NATS_URL=f"nats://127.0.0.1:{a_free_port()}", EDGE_MAILBOX_ID="north")
    process = subprocess.Popen([_IMAGING, "run", "event-bridge"], env=environment, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        process.stderr.readline()  # the first failed try to connect
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
