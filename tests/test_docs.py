"""The pages of docs/ are built without a warning, and a browser reads them from the disk alone."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from playwright.sync_api import Browser, Page

from captcha_registry import __version__
from captcha_registry.cli import COMMANDS

DOCS = ROOT / "docs"
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as `make docs` builds them."""
    target, work = tmp_path_factory.mktemp("docs"), tmp_path_factory.mktemp("doctrees")
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--doctree-dir", work, DOCS, target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def noise() -> list[str]:
    """What `page` says in the console or asks of any other place than the disk."""
    return []


@pytest.fixture
def page(browser: Browser, noise: list[str], request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of a browser without a network; a test may ask for a phone's."""
    with browser.new_context(offline=True, **getattr(request, "param", {})) as context:
        opened = context.new_page()
        opened.on("console", lambda message: noise.append(message.text))
        opened.on("pageerror", lambda error: noise.append(str(error)))
        opened.on("requestfailed", lambda asked: noise.append(asked.url))
        opened.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else noise.append(asked.url))
        yield opened


def list_pages(built: Path) -> list[Path]:
    return sorted(path for path in built.rglob("*.html") if path.name not in {"genindex.html", "py-modindex.html"})


@pytest.mark.slow
def test_every_page_of_the_source_is_built(built: Path) -> None:
    sources = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md") if "build" not in path.parts}
    assert sources <= {path.relative_to(built).with_suffix("") for path in list_pages(built)}


@pytest.mark.peers
@pytest.mark.parametrize("page", [{"viewport": PHONE}], indirect=True, ids=["phone"])
def test_no_page_asks_anything_of_the_network_says_anything_or_is_wider_than_a_phone(
    built: Path, page: Page, noise: list[str]
) -> None:
    for path in list_pages(built):
        page.goto(path.as_uri(), wait_until="load")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
        assert all(page.evaluate("[...document.images].map(image => image.naturalWidth > 0)")), path
        assert noise == [], path


@pytest.mark.peers
def test_search_finds_a_command_in_pages_that_were_opened_from_the_disk(built: Path, page: Page, noise: list[str]) -> None:
    page.goto((built / "index.html").as_uri())
    page.get_by_role("textbox", name="Search").first.fill("repair")
    page.keyboard.press("Enter")
    found = page.locator("#search-results a[href*='reference/commands.html']").first
    found.wait_for()
    found.click()
    page.get_by_role("heading", name="repair").wait_for()
    assert noise == []


@pytest.mark.peers
def test_the_ground_is_light_by_day_and_dark_by_night(built: Path, browser: Browser) -> None:
    grounds = {}
    for scheme in ("light", "dark"):
        with browser.new_context(color_scheme=scheme) as context:
            opened = context.new_page()
            opened.goto((built / "index.html").as_uri())
            colour = opened.evaluate("getComputedStyle(document.body).backgroundColor")
            grounds[scheme] = sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")[:3])) / 3
    assert grounds["dark"] < 64
    assert grounds["light"] > 192


def test_the_reference_has_every_command_in_the_order_of_the_help() -> None:
    text = (DOCS / "reference/commands.md").read_text()
    assert [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")] == list(COMMANDS)
    assert [line.split()[1] for line in text.splitlines() if line.startswith("```{command}")] == list(COMMANDS)


def test_what_is_cited_is_this_release() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
