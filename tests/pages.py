"""Pages of ``dpcdvae view`` taken apart, and a browser to open them in."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpcdvae.structures.crystal import Crystal

PEROVSKITE = Crystal(
    [38, 22, 8, 8, 8],
    [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    np.eye(3) * 3.905,
    id="sto",
)
SALT = Crystal([11, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], (np.ones((3, 3)) - np.eye(3)) * 2.82, id="salt")


def report_of(crystals: int, text: str = "text") -> dict[str, Any]:
    """A report of one number about so many crystals, with this text wherever one is free."""
    number = {"value": 0.75, "interval": [0.5, 0.9], "n": 4}
    metric = {"name": "validity", "gate": "none", **number, "undecided": 0, "unit": "", "note": ""}
    return {
        "schema": "dpcdvae.evaluation/2",
        "crystals": {"generated": crystals, "read": crystals, "failures": []},
        "reference": {"source": text, "sha256": "", "count": 1, "kind": "crystals"},
        "metrics": [{**metric, "baselines": {"x": number}}],
        "headline": [{"name": "validity", "gate": "none", "verdict": text}],
    }


class Page(HTMLParser):
    """The elements of a page with their attributes, and the text of those that hold some.

    Attributes:
        tags: (name, attributes) in order.
        texts: (name, attributes, text) of every script and style.
        words: all other text.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, dict[str, str | None], str]] = []
        self.words, self._inside = "", False
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.texts.append((tag, dict(attrs), ""))
        self._inside = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            tag, attributes, text = self.texts[-1]
            self.texts[-1] = tag, attributes, text + data
        else:
            self.words += data

    def unpacked(self, id: str) -> Any:
        """The JSON in a block of data."""
        (text,) = (text for _, attributes, text in self.texts if attributes.get("id") == id)
        return json.loads(gzip.decompress(base64.b64decode(text)))

    def column(self, name: str) -> list[Any]:
        (values,) = (column["values"] for column in self.unpacked("data")["columns"] if column["name"] == name)
        return values

    def policy(self) -> dict[str, list[str]]:
        """The content-security policy, sources by directive."""
        (content,) = (attributes["content"] for tag, attributes in self.tags if "Security" in str(attributes))
        return {name: sources for name, *sources in (part.split() for part in re.split(r";\s*", content or ""))}


PATIENCE = 600.0  # seconds: WebGL without a graphics card is slow, and the machine may be busy


@contextmanager
def browser(width: int = 400, height: int = 300) -> Iterator[Any]:
    """A headless Chromium without a network, driven by Selenium. The test skips where either is missing.

    The window is that of a phone: without a graphics card, time goes with the number of pixels.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install 'dpcdvae[dev]'")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "--headless=new",
        "--no-sandbox",  # there is none in a container
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--disable-gpu-rasterization",  # without a graphics card it takes twice as long
        "--disable-gpu-compositing",
        "--use-angle=swiftshader",  # WebGL without a graphics card
        "--enable-unsafe-swiftshader",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    window.set_script_timeout(PATIENCE)
    window.set_page_load_timeout(PATIENCE)
    try:
        dark_mode(window, False)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
        window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield window
    finally:
        window.quit()


def dark_mode(window: Any, dark: bool) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def wait_for(window: Any, condition: str, seconds: float = PATIENCE) -> Any:
    """The value of an expression of JavaScript as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := window.execute_script(f"return {condition}")):
        assert time.monotonic() < end, f"{condition} did not come true: {window.get_log('browser')}"
        time.sleep(0.1)
    return value


def open_page(window: Any, path: Path, first: str) -> None:
    """Opens a page and waits until the crystal with the id ``first`` is drawn."""
    window.get(path.as_uri())
    wait_for(window, f"document.getElementById('stage').dataset.drawn === {json.dumps(first)}")


def errors(window: Any) -> list[str]:
    """What the page had as errors since the last call; warnings on the speed of WebGL are left out."""
    return [entry["message"] for entry in window.get_log("browser") if entry["level"] == "SEVERE"]


def requested(window: Any) -> list[str]:
    """The addresses that the page asked for since the last call, its own file and what lies in the page left out."""
    found = []
    for entry in window.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(message["params"]["request"]["url"])
    return [url for url in found if not url.startswith(("file:", "data:", "blob:"))]
