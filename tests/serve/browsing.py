"""A page of the server in a real browser, for the tests."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from .conftest import Server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = ["--no-sandbox", "--autoplay-policy=user-gesture-required", "--mute-audio"]


class Page:
    """A server and its page; what the browser complains of is an error at the end.

    Parameters
    ----------
    browser : Browser
        Of Playwright.
    folder : Path
        Of songs and results.
    *options : str
        Of the command.
    **look : Any
        As for `Browser.new_page`.
    """

    def __init__(self, browser: Any, folder: Path, *options: str, **look: Any) -> None:
        self.server = Server(folder, *options)
        look.setdefault("viewport", {"width": 1280, "height": 900})
        self.page = browser.new_page(**look)
        self.page.set_default_timeout(60_000)
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._hear)
        self.page.goto(self.server.address)
        self.page.wait_for_selector("input[name=model]", state="attached")

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.page.close()
        self.server.stop()
        if kind is None:
            assert self.complaints == []

    def wait_for(self, state: str, nb_songs: int = 1) -> None:
        """Wait until so many songs of the list are in a state."""
        self.until(
            f"document.querySelectorAll('#songs li[data-state={state}]').length === {nb_songs}"
        )

    def until(self, expression: str, seconds: float = 60.0) -> None:
        """Wait until an expression holds; Playwright's own way needs `eval` on the page."""
        deadline = time.monotonic() + seconds
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, expression
            self.page.wait_for_timeout(50)

    def mixer(self, expression: str) -> Any:
        """Evaluate an expression of the page's own mixer, named `m`."""
        return self.page.evaluate(
            f"async () => {{ const m = (await import('/static/main.js')).state.mixer;"
            f" return {expression}; }}"
        )
