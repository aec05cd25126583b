"""A headless Chromium driven over a pipe (https://chromedevtools.github.io/devtools-protocol)."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
PATIENCE_S = 60.0
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One browser process; messages are JSON that a zero byte ends."""

    def __init__(self, profile: Path) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        quiet = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        pipes = [(os.POSIX_SPAWN_DUP2, theirs_in, 3), (os.POSIX_SPAWN_DUP2, theirs_out, 4)]  # where Chromium looks
        command = [str(CHROMIUM), *_FLAGS, f"--user-data-dir={profile}"]
        self._process = os.posix_spawn(command[0], command, os.environ, file_actions=quiet + pipes)
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest, self._asked = b"", 0
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its result."""
        self._asked += 1
        message = {"id": self._asked, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._asked:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(deadline - time.monotonic(), 0))
            found = os.read(self._in, 1 << 20) if ready else b""
            if not found:
                raise TimeoutError("the browser does not answer")
            self._rest += found
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def close(self) -> None:
        """End the process, which also ends when its pipe is closed."""
        try:
            self.ask("Browser.close")
        finally:
            os.close(self._out)
            os.close(self._in)
            os.waitpid(self._process, 0)


class Page:
    """A file in a tab: what a reader does with it, and what it says."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command to this tab."""
        return self._browser.ask(method, self._session, **params)

    def run(self, script: str) -> Any:
        """The value of an expression."""
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"]["description"])
        return found["result"].get("value")

    def settle(self) -> None:
        """Wait until what was done has been drawn."""
        self.run(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50))))"
        )

    def look(self, width: int, height: int = 1000, *, dark: bool = False) -> None:
        """Give the window a size and the reader's system a theme."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[theme])
        self.settle()

    def point(self, selector: str) -> None:
        """Scroll to an element and move the pointer onto its middle."""
        x, y = self._middle(selector)
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.settle()

    def click(self, selector: str) -> None:
        """Press and release the left button on an element."""
        self.point(selector)
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def wheel(self, selector: str, turn: float) -> None:
        """Turn the wheel over an element."""
        x, y = self._middle(selector)
        self.ask("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=turn)
        self.settle()

    def press(self, key: str) -> None:
        """Press and release a key, such as `Tab`."""
        code = {"Tab": 9, "Enter": 13, "ArrowRight": 39}[key]
        for kind in ("rawKeyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)
        self.settle()

    def _middle(self, selector: str) -> tuple[float, float]:
        return tuple(
            self.run(
                f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
                " e.scrollIntoView({ block: 'center' }); const box = e.getBoundingClientRect();"
                " return [box.left + box.width / 2, box.top + box.height / 2]; })()"
            )
        )

    def picture(self, path: Path) -> None:
        """Write the whole page as PNG."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.ask("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _told(self, method: str) -> list[dict[str, Any]]:
        self.settle()
        mine = (e for e in self._browser.events if e.get("sessionId") == self._session)
        return [event["params"] for event in mine if event["method"] == method]

    @property
    def console(self) -> list[str]:
        """Everything that scripts wrote to the console, errors nobody caught, and the browser's own complaints."""
        said = [str(event["args"]) for event in self._told("Runtime.consoleAPICalled")]
        thrown = [str(event["exceptionDetails"]) for event in self._told("Runtime.exceptionThrown")]
        return said + thrown + [event["entry"]["text"] for event in self._told("Log.entryAdded")]

    @property
    def requests(self) -> list[str]:
        """Addresses that the page asked for, but for itself."""
        asked = [event["request"]["url"] for event in self._told("Network.requestWillBeSent")]
        return [address for address in asked[1:] if not address.startswith(("data:", "blob:"))]


@contextmanager
def opened(browser: Browser, path: Path, *, width: int = 1280, dark: bool = False) -> Iterator[Page]:
    """A file in a tab of its own, at a width, in a theme."""
    target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
    page = Page(browser, browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
    for domain in ("Page", "Runtime", "Log", "Network"):
        page.ask(f"{domain}.enable")
    page.look(width, dark=dark)
    page.ask("Page.navigate", url=path.as_uri())
    page.run("new Promise((done) => document.readyState === 'complete' ? done() : addEventListener('load', done))")
    page.settle()
    yield page
    browser.ask("Target.closeTarget", targetId=target)
