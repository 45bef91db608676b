"""A page in a real browser: what it asks for, logs, cuts off or lays over another text, and what axe finds."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

# Of each piece of text its box: one that begins or ends outside of the window is cut, wherever one could scroll to it.
FAULTS = """() => {
  const boxes = [], faults = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, range = document.createRange();
    if (!node.data.trim()) continue;
    range.selectNodeContents(node);
    for (const box of range.getClientRects())
      if (box.width > 1 && box.height > 1)
        boxes.push({text: node.data.trim().slice(0, 60), box});
  }
  for (const {text, box} of boxes)
    if (box.left < -0.5 || box.right > innerWidth + 0.5) faults.push(`cut: ${text}`);
  boxes.forEach((one, number) => {
    for (const other of boxes.slice(number + 1)) {
      const width = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
      const height = Math.min(one.box.bottom, other.box.bottom) - Math.max(one.box.top, other.box.top);
      if (width > 1 && height > 3) faults.push(`overlap: ${one.text} / ${other.text}`);
    }
  });
  if (document.documentElement.scrollWidth > innerWidth) faults.push("the page is wider than the window");
  return faults;
}"""


@dataclass
class Seen:
    """What happened on a page: requests but for itself, lines in the console, faults of the layout, findings of axe."""

    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The distribution's browser, without a window; the test is skipped where it is not installed."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def see(browser: Browser, path: Path, picture: Path, *, width: int, scheme: Any, height: int | None = None) -> Seen:
    """Open the page in a window of this width, and keep a picture of all of it, or of the first ``height`` pixels.

    ``scheme`` is ``light``, ``dark`` or ``print``.
    """
    seen = Seen()
    colors: Any = "light" if scheme == "print" else scheme
    page: Page = browser.new_page(viewport={"width": width, "height": height or 900}, color_scheme=colors)
    page.emulate_media(media="print" if scheme == "print" else "screen")
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("console", lambda message: seen.console.append(message.text))
    page.on("pageerror", lambda error: seen.console.append(str(error)))
    page.goto(path.as_uri())
    seen.requests.remove(path.as_uri())
    seen.faults = page.evaluate(FAULTS)
    page.screenshot(path=picture, full_page=height is None)
    found = Axe().run(page).response["violations"]
    seen.findings = [f"{each['id']} ({each['impact']}): {each['nodes'][0]['html']}" for each in found]
    page.close()
    return seen
