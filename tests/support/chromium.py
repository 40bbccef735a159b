"""Debian's Chromium without a window, driven by the DevTools protocol over a pipe; no library is needed for that."""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

_ANSWER_BYTES = 64 * 1024 * 1024
_SECONDS = 60
# Chromium reads commands from descriptor 3 and writes to 4; this puts the pipes there and becomes Chromium.
_LAUNCHER = """
import fcntl, os, sys
reading, writing = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(reading, 3)
os.dup2(writing, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # tests may run as root; the only pages are the test's own
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
    "--window-size=1400,900",
)


class Page:
    """A tab. ``messages`` are what its console said, errors first of all."""

    def __init__(self, pipe: "_Pipe", session: str) -> None:
        self._pipe, self._session = pipe, session
        self.messages: list[str] = []
        pipe.listeners[session] = self._listen

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol."""
        return await self._pipe.command(method, parameters, self._session)

    async def open(self, url: str) -> None:
        """Go to an address; returns when it has begun to load."""
        answer = await self.command("Page.navigate", url=url)
        assert "errorText" not in answer, answer

    async def before_each_document(self, script: str) -> None:
        """Run a script in each page before its own."""
        await self.command("Page.addScriptToEvaluateOnNewDocument", source=script)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited when it is a promise."""
        answer = await self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, expression: str, seconds: float = _SECONDS) -> Any:
        """The expression's value, when it has become true."""
        value = None
        try:
            async with asyncio.timeout(seconds):
                while not (value := await self.evaluate(expression)):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            text = await self.evaluate("document.body?.innerText")
            raise AssertionError(f"{expression} is still {value!r}; the page says {text!r}; {self.messages}") from None
        return value

    async def click(self, expression: str) -> None:
        """Click in the middle of the element that the expression gives."""
        place = await self.until(
            f"(() => {{ const it = {expression}; if (!it) return null;"
            " const box = it.getBoundingClientRect();"
            " return box.width ? [box.x + box.width / 2, box.y + box.height / 2] : null; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.command(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1
            )

    async def screenshot(self, path: Path) -> None:
        """Write what is shown as PNG."""
        answer = await self.command("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(answer["data"]))

    def _listen(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.messages.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.messages.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and parameters["type"] == "error":
            self.messages.append(" ".join(str(one.get("value", one.get("description"))) for one in parameters["args"]))


class _Pipe:
    """Commands and their answers, matched by number."""

    def __init__(self, reader: asyncio.StreamReader, writer: Any) -> None:
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.listeners: dict[str, Any] = {}

    async def command(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        self._writer.write(json.dumps(message).encode() + b"\0")
        async with asyncio.timeout(_SECONDS):
            return await self._waiting[number]

    async def read(self) -> None:
        """Hand out what comes, until Chromium ends."""
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                message = json.loads((await self._reader.readuntil(b"\0"))[:-1])
                waiting = self._waiting.pop(message.get("id", 0), None)
                listener = self.listeners.get(message.get("sessionId", ""))
                if waiting is not None and "error" in message:
                    waiting.set_exception(AssertionError(message["error"]))
                elif waiting is not None:
                    waiting.set_result(message["result"])
                elif listener is not None and "method" in message:
                    listener(message["method"], message["params"])
        for left in self._waiting.values():
            left.set_exception(AssertionError("Chromium has ended"))


@asynccontextmanager
async def a_page(folder: Path) -> AsyncIterator[Page]:
    """A tab of a Chromium of its own; ``folder`` takes its profile and its log."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("Chromium is not installed, this test needs it; on Debian: apt-get install chromium", pytrace=False)
    reading, commands = os.pipe()
    answers, writing = os.pipe()
    command = [sys.executable, "-c", _LAUNCHER, str(reading), str(writing), program, *_OPTIONS]
    with (folder / "chromium.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            f"--user-data-dir={folder / 'profile'}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(reading, writing),
            env={**os.environ, "HOME": str(folder)},
        )
    os.close(reading)
    os.close(writing)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_ANSWER_BYTES)
    incoming, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(answers, "rb"))
    outgoing, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(commands, "wb"))
    pipe = _Pipe(reader, outgoing)
    listening = asyncio.create_task(pipe.read())
    try:
        yield await _new_page(pipe)
    finally:
        process.kill()
        await process.wait()
        await listening
        incoming.close()
        outgoing.close()


async def _new_page(pipe: _Pipe) -> Page:
    target = await pipe.command("Target.createTarget", {"url": "about:blank"})
    attached = await pipe.command("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
    page = Page(pipe, attached["sessionId"])
    for domain in ("Page", "Runtime", "Log"):
        await page.command(f"{domain}.enable")
    return page
