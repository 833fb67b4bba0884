"""Debian's Chromium, in which pages are looked at with the network refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Playwright, Route

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
# What a page may open: itself and what is inside of it.
LOCAL = ("file:", "data:", "blob:", "about:")


def start_chromium(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(FLAGS))


@dataclass
class Visit:
    """A page, what it asked the network for, and what it said on the console."""

    page: Page
    attempts: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def refuse(self, route: Route) -> None:
        """Let through what is on this machine's disk; refuse all else, and note it."""
        if route.request.url.startswith(LOCAL):
            route.continue_()
        else:
            self.attempts.append(route.request.url)
            route.abort()

    def find_barriers(self) -> list[dict[str, Any]]:
        """Let axe look for what seriously keeps people from reading the page."""
        found = Axe().run(self.page).response["violations"]
        return [violation for violation in found if violation["impact"] in {"serious", "critical"}]


@contextmanager
def visit(browser: Browser, **options: Any) -> Iterator[Visit]:
    """Open an empty page; `options` are those of a context: `viewport`, `color_scheme`, `java_script_enabled`."""
    context = browser.new_context(**options)
    visited = Visit(context.new_page())
    context.route("**/*", visited.refuse)
    visited.page.on("console", lambda message: visited.messages.append(message.text))
    visited.page.on("pageerror", lambda error: visited.messages.append(str(error)))
    yield visited
    context.close()
