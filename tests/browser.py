"""A headless Chromium, driven over its own protocol: what a reader's browser loads, shows and asks for."""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import websocket

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_S = 300

CONTRAST = """(() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const texts = ["p", "li", "td", "th", "a", "h2"].map((name) => `article ${name}`).join();
  for (const element of document.querySelectorAll(texts)) {
    if (!element.innerText.trim() || !element.checkVisibility()) continue;
    const [a, b] = [light(parts(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${element.tagName} ${element.innerText.slice(0, 40)}`);
  }
  return poor;
})()"""
"""Texts of an article whose contrast with what lies behind them is below 4.5 (WCAG AA)."""


class Page:
    """A tab; `requests` are the addresses it asked for outside the disk, `errors` what its console complained of."""

    def __init__(self, address: str) -> None:
        self._socket, self._last = websocket.create_connection(address, timeout=PATIENCE_S), 0
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._loaded = False
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict:
        """Send a command and return its answer."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while True:
            told = self._hear()
            if told.get("id") == self._last:
                return told.get("result", {})

    def _hear(self) -> dict:
        """Read one message and keep what it tells of the page."""
        told = json.loads(self._socket.recv())
        what, about = told.get("method"), told.get("params", {})
        if what == "Network.requestWillBeSent" and not about["request"]["url"].startswith(("file:", "data:", "blob:")):
            self.requests.append(about["request"]["url"])
        failed = what == "Log.entryAdded" and about["entry"]["level"] == "error"
        failed |= what == "Runtime.consoleAPICalled" and about["type"] == "error"
        if failed or what == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(about))
        self._loaded |= what == "Page.loadEventFired"
        return told

    def open(self, path: str, width: int, scheme: str = "light", media: str = "") -> None:
        """Open a page from disk and wait until it has loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 600
        )
        scheme_asked = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=scheme_asked)
        self._loaded = False
        self.call("Page.navigate", url=f"file://{path}")
        while not self._loaded:
            self._hear()

    def ask(self, script: str) -> object:
        """Value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value", answer.get("exceptionDetails"))


@contextmanager
def browser() -> Iterator[Page]:
    """Start Chromium with a profile of its own and end it with the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        command += ["--remote-allow-origins=*", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port, deadline = Path(profile, "DevToolsActivePort"), time.monotonic() + PATIENCE_S
            while not port.exists() or not port.read_text():
                assert time.monotonic() < deadline, "Chromium did not start"
                time.sleep(0.1)
            number = port.read_text().split()[0]
            tabs = json.load(urlopen(f"http://127.0.0.1:{number}/json"))
            yield Page(next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"))
        finally:
            process.terminate()
            process.wait()
