"""A real Chromium without a window, driven over the WebDriver protocol."""

from __future__ import annotations

import json
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.request import Request, urlopen

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
CALL_S_MAX = 60.0


def chromium() -> tuple[str, str] | None:
    """Return the paths of the browser and of its driver, None where one of them is missing."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Browser:
    """One session of a browser."""

    def __init__(self, url: str, capabilities: dict[str, Any]) -> None:
        self._url = f"{url}/session"
        wanted = {"capabilities": {"alwaysMatch": capabilities}}
        self._url = f"{self._url}/{self._call('', wanted)['sessionId']}"

    def show(self, width: int, height: int, scheme: str) -> None:
        """Set the size of the page, and whether it is light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self._devtools("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._devtools("Emulation.setEmulatedMedia", {"features": features})

    def open(self, page: Path) -> None:
        """Open a page from the disk."""
        self._call("/url", {"url": page.as_uri()})

    def run(self, script: str) -> Any:
        """Run a function body in the page, and return its value."""
        return self._call("/execute/sync", {"script": script, "args": []})

    def press(self, *keys: str) -> None:
        """Press and let go of keys one after the other."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        keyboard = {"type": "key", "id": "keyboard", "actions": actions}
        self._call("/actions", {"actions": [keyboard]})

    def errors(self) -> list[str]:
        """Return what the page has complained of since the last call."""
        return [str(entry["message"]) for entry in self._call("/se/log", {"type": "browser"})]

    def screenshot(self, path: Path) -> None:
        """Write the whole page to a file."""
        whole = {"captureBeyondViewport": True, "format": "png"}
        shot = self._devtools("Page.captureScreenshot", whole)
        path.write_bytes(b64decode(shot["data"]))

    def close(self) -> None:
        """End the session."""
        request = Request(self._url, method="DELETE")
        urlopen(request, timeout=CALL_S_MAX).close()

    def _devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        return self._call("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _call(self, path: str, body: dict[str, Any]) -> Any:
        request = Request(self._url + path, json.dumps(body).encode())
        with urlopen(request, timeout=CALL_S_MAX) as response:
            return json.load(response)["value"]


@contextmanager
def browsing(browser: str, driver: str) -> Iterator[Browser]:
    """Yield a browser, which is gone afterwards."""
    with subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            options = {"binary": browser, "args": list(FLAGS)}
            session = Browser(
                _address(process),
                {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}},
            )
            try:
                yield session
            finally:
                session.close()
        finally:
            process.terminate()


def _address(process: subprocess.Popen[str]) -> str:
    for line in cast("Iterator[str]", process.stdout):
        if "on port" in line and "successfully" in line:
            port = line.rpartition(" ")[2].strip(" .\n")
            return f"http://127.0.0.1:{port}"
    raise AssertionError("chromedriver did not start")
