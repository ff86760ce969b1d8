"""A headless Chromium driven over its DevTools protocol, for tests of pages; None of it where no Chromium is found."""

import asyncio
import base64
import contextlib
import itertools
import os
import shutil
import subprocess
from pathlib import Path

import aiohttp

BINARY = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--remote-debugging-port=0"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
PATIENCE = 30.0  # seconds, for anything that a page or the browser is to do


class Page:
    """One tab. Every method is a coroutine."""

    def __init__(self, socket) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def send(self, method: str, **params) -> dict:
        """One command; returns its result and raises RuntimeError with the browser's reason."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json(timeout=PATIENCE)
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    async def open(self, place: Path | str) -> None:
        """Load a local file or an address and wait until its script has run."""
        await self.send("Page.enable")
        await self.value("window.before = true")  # the page of before may answer for a while yet
        await self.send("Page.navigate", url=place if isinstance(place, str) else place.resolve().as_uri())
        await self.until("!window.before && document.readyState === 'complete' && /^(file|http):/.test(location)")

    async def resize(self, width: int, height: int = 900) -> None:
        """A screen of so many CSS pixels, whatever the window is."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.send("Emulation.setDeviceMetricsOverride", **size)

    async def value(self, script: str):
        """The value of a JavaScript expression."""
        found = await self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description", "the script failed"))
        return found["result"].get("value")

    async def until(self, script: str) -> None:
        """Wait until an expression is true."""
        async with asyncio.timeout(PATIENCE):
            while not await self.value(script):
                await asyncio.sleep(0.02)

    async def press(self, key: str) -> None:
        """A key, as a person presses it: "a", " ", "ArrowLeft", "Enter"."""
        text = {"text": "\r" if key == "Enter" else key} if len(key) == 1 or key == "Enter" else {}
        await self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        await self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def click(self, selector: str) -> None:
        """A click in the middle of an element, which must be on the screen."""
        box = await self.value(
            f"(() => {{ const n = document.querySelector({selector!r});"
            "n.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const b = n.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    async def picture(self, path: Path) -> None:
        """A screenshot, to look at by hand."""
        found = await self.send("Page.captureScreenshot")
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.asynccontextmanager
async def browser(folder: Path):
    """A page of a fresh browser whose profile and downloads lie in `folder`; both end with the block."""
    profile, downloads = folder / "profile", folder / "downloads"
    downloads.mkdir(parents=True)
    environment = {**os.environ, "HOME": str(folder)}
    process = subprocess.Popen(
        [BINARY, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        port = await _port(profile / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as reply:
                (tab,) = [tab for tab in await reply.json(content_type=None) if tab["type"] == "page"]
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                await page.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
                yield page
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)


async def _port(path: Path, process: subprocess.Popen) -> int:
    async with asyncio.timeout(PATIENCE):
        while not (path.is_file() and "\n" in path.read_text()):
            if process.poll() is not None:
                raise RuntimeError(f"{BINARY} ended at once with exit code {process.returncode}")
            await asyncio.sleep(0.05)
    return int(path.read_text().splitlines()[0])
