"""A headless Chromium, driven over a pair of pipes: no driver and no library, only the browser.

Chromium reads commands of its DevTools protocol from file descriptor 3 and writes answers and events to 4, each message
JSON that ends with a zero byte.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["NAMES", "Browser", "Tab", "find_chromium", "start"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "chrome-headless-shell")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def find_chromium() -> str | None:
    """Return the browser named by CHROMIUM, else the first on the path."""
    named = os.environ.get("CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """Commands out, answers and events in."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = os.fdopen(commands, "wb", buffering=0)
        self._answers = os.fdopen(answers, "rb")
        self._number = 0
        self._buffer = b""
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come meanwhile are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._commands.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def wait(self, method: str, session: str) -> None:
        """Read on until an event of this name has come."""
        while not any(event["method"] == method and event.get("sessionId") == session for event in self.events):
            self.events.append(self._read())

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = os.read(self._answers.fileno(), 1 << 16)
            assert piece, "the browser has gone away"
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def close(self) -> None:
        self._commands.close()
        self._answers.close()


class Tab:
    """One page at one width, light or dark."""

    def __init__(self, browser: Browser, path: Path, *, width: int = 1024, scheme: str = "light") -> None:
        self._browser = browser
        target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        # Not `mobile`: such a view widens with what does not fit, and nothing would ever seem too wide.
        metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **metrics)
        self._scheme = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", features=[self._scheme])
        self.send("Page.navigate", url=path.resolve().as_uri())
        browser.wait("Page.loadEventFired", self._session)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.send(method, self._session, **parameters)

    def print_media(self) -> None:
        """Show the page as it is printed."""
        self.send("Emulation.setEmulatedMedia", media="print", features=[self._scheme])

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression in the page; the page's own policy does not bind it."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def complaints(self) -> list[str]:
        """Return what the page wrote to the console, or the browser about it."""
        names = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self._own() if event["method"] in names]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for."""
        return [
            event["params"]["request"]["url"] for event in self._own() if event["method"] == "Network.requestWillBeSent"
        ]

    def _own(self) -> Iterator[dict[str, Any]]:
        return (event for event in self._browser.events if event.get("sessionId") == self._session)


@contextmanager
def start(chromium: str, folder: Path) -> Iterator[Browser]:
    """Run a browser whose profile is in `folder`."""
    command_read, command_write = os.pipe()
    answer_read, answer_write = os.pipe()
    # The shell puts the pipes where Chromium expects them.
    script = f'exec "$0" "$@" 3<&{command_read} 4>&{answer_write}'
    words = [chromium, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(
        ["bash", "-c", script, *words],
        pass_fds=(command_read, answer_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(command_read)
    os.close(answer_write)
    browser = Browser(command_write, answer_read)
    try:
        yield browser
        browser.send("Browser.close")
    finally:
        browser.close()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
