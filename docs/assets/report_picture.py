"""The pictures of a run's report, on a light and on a dark ground; needs Chromium.

python run.py
PYTHONPATH=tests/kit python docs/assets/report_picture.py outputs/dlma/report.html
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import chromium

HERE = Path(__file__).resolve().parent

WIDTH, HEIGHT = 1160, 840
THEMES = ("light", "dark")


async def take(report: Path, folder: Path) -> None:
    """Write the top of a report, as each theme shows it, into a folder."""
    with tempfile.TemporaryDirectory() as place:
        async with chromium.browser(Path(place)) as page:
            size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
            await page.send("Emulation.setDeviceMetricsOverride", **size)
            await page.send("Emulation.setScrollbarsHidden", hidden=True)
            for theme in THEMES:
                wanted = [{"name": "prefers-color-scheme", "value": theme}]
                await page.send("Emulation.setEmulatedMedia", features=wanted)
                await page.open(report)
                await page.picture(folder / f"report_{theme}.png")


if __name__ == "__main__":
    asyncio.run(take(Path(sys.argv[1]), HERE))
