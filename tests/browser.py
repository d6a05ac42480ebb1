"""A real browser for tests: Chromium and its driver (Debian: chromium, chromium-driver). Nothing is fetched."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

SECONDS = 60
"""The longest that a state is waited for; a limit for a page that hangs, not a measure."""

CONTRAST = """(() => {
  const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const shade = (colour) => colour.slice(0, 3).map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      if (e.ownerSVGElement) continue;
      const found = parse(getComputedStyle(e).backgroundColor);
      if (found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  const under = (e) => {
    const disc = e.closest(".token")?.querySelector(".disc");
    if (disc) return parse(getComputedStyle(disc).fill);
    const behind = e.ownerSVGElement.querySelector(e.classList.contains("refs") ? ".pill" : ".box");
    const fill = getComputedStyle(behind).fill;
    return fill === "none" ? ground(e.ownerSVGElement) : parse(fill);
  };
  const poor = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !e.getClientRects().length || ["SCRIPT", "STYLE", "OPTION"].includes(e.tagName)) continue;
    const inSvg = e.ownerSVGElement;
    const style = getComputedStyle(e);
    const [a, b] = [shade(parse(inSvg ? style.fill : style.color)), shade(inSvg ? under(e) : ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const name = `${e.tagName}.${e.getAttribute("class")} ${e.textContent.slice(0, 30)}`;
    if (ratio < 4.5) poor.push(`${name}: ${ratio.toFixed(2)}`);
  }
  return poor;
})()"""
"""The texts on show whose contrast is less than the 4.5 to 1 that WCAG 2 asks of text (AA)."""


@contextmanager
def started(profile: Path, *, network: bool = False) -> Iterator[Any]:
    """A headless browser whose console is recorded. profile: an empty folder of its own. network: record requests."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"):
        options.add_argument(argument)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox does not work for root.
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", **({"performance": "ALL"} if network else {})})
    driver = webdriver.Chrome(options=options, service=Service(executable_path=str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def emulate(
    driver: Any, *, width: int = 1280, height: int = 900, scheme: str = "light", motion: str = "no-preference"
) -> None:
    """A screen of that size, and what its user prefers."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": motion},
    ]
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def requests(driver: Any) -> list[str]:
    """The addresses that were asked for since the last look."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]


def until(driver: Any, script: str) -> None:
    """Wait until the script returns true."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, SECONDS, poll_frequency=0.02).until(lambda _: driver.execute_script(script), script)


def errors(driver: Any) -> list[str]:
    """What the console has, and forget it."""
    return [entry["message"] for entry in driver.get_log("browser")]


class Page:
    """A page in a browser: what is pressed, what is seen."""

    def __init__(self, driver: Any, file: Path) -> None:
        self.driver = driver
        self.file = file

    def open(self, address: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(self.file.as_uri() + address)

    def js(self, expression: str, *arguments: object) -> Any:
        return self.driver.execute_script(f"return ({expression})", *arguments)

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def text(self, element: str) -> str:
        return str(self.js("document.getElementById(arguments[0]).textContent", element))

    def light(self, clause: str) -> str:
        return str(self.js("document.getElementById('light-' + arguments[0]).className", clause)).partition(" ")[2]
