# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Debian's Chromium without a window, for pages that lie on disk; and axe-core, which finds what shuts people out."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from npm_packages import npm_packages
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
"""Tests run as root, whom Chromium gives no sandbox, on machines with little shared memory."""

_MOST_PIXELS = 12_000
"""Height of a picture."""


class Browser:
    """A browser with one page."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(
        self, page: Path, *, width: int = 1200, scheme: str = "light", media: str = "", hash_: str = ""
    ) -> list[str]:
        """Load a file, and return what the browser's console says and what was asked for over a network."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        self.driver.get("about:blank")
        self.driver.get_log("performance")
        self.driver.get(f"{page.as_uri()}{hash_}")
        console = [entry["message"] for entry in self.driver.get_log("browser")]
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        return console + [url for url in asked if not url.startswith(("file://", "data:"))]

    def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the browser's DevTools protocol."""
        return self.driver.execute_cdp_cmd(method, parameters)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page."""
        return self.driver.execute_script(script, *arguments)

    def picture(self, path: Path, *, height: int = _MOST_PIXELS) -> None:
        """Write the page as PNG, at most ``height`` pixels high."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], height), "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def paper(self, path: Path) -> bytes:
        """Print the page into a PDF file, and return it."""
        printed = base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])
        path.write_bytes(printed)
        return printed

    def violations(self, without: str = "") -> list[str]:
        """Return what axe-core finds wrong, but for the rule ``without``: the rule, and the elements."""
        self.run((npm_packages() / "node_modules/axe-core/axe.min.js").read_text())
        found = self.driver.execute_async_script(
            "const [without, done] = arguments;"
            "const rules = without === '' ? {} : {[without]: {enabled: false}};"
            "axe.run({resultTypes: ['violations'], rules}).then(done, (error) => done({error}))",
            without,
        )
        return [
            f"{violation['id']}: {violation['help']}: {[node['html'][:200] for node in violation['nodes'][:3]]}"
            for violation in found["violations"]
        ]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start a browser; it ends with the context."""
    options = webdriver.ChromeOptions()
    for option in _OPTIONS:
        options.add_argument(option)
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    driver.set_script_timeout(110)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
