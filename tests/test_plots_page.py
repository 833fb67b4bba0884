"""The page of `dvc plots diff`, looked at in a real browser that refuses the network."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from browsers import Visit, visit
from checkouts import Checkout
from PIL import Image
from playwright.sync_api import Browser, Locator
from ruamel.yaml import YAML

from captcha_registry.recognition import tables
from captcha_registry.seeing.plots import draw_errors, encode_sheet
from captcha_registry.seeing.vendored import VERSIONS

pytestmark = pytest.mark.peers

ROOT = Path(__file__).parent.parent
ALPHABET = "0123456789O"
# Of each revision, what 0 is read as.
REVISIONS = {"main": "O", "better": "0"}
DVC_TEMPLATES = {
    "bar_horizontal": {"x": "count", "y": "actual"},
    "bar_horizontal_sorted": {"x": "count", "y": "actual"},
    "confusion": {"x": "actual", "y": "predicted"},
    "confusion_normalized": {"x": "actual", "y": "predicted"},
    "linear": {"x": "count", "y": "total"},
    "scatter": {"x": "count", "y": "total"},
    "scatter_jitter": {"x": "count", "y": "total"},
    "simple": {"x": "count", "y": "total"},
    "smooth": {"x": "count", "y": "total"},
}


def write_plots(folder: Path, read_for_0: str) -> None:
    """Write what `evaluate` writes of a model that reads all but some 0 right."""
    labels = [f"{a}{b}" for a in ALPHABET for b in ALPHABET]
    readings = pd.DataFrame({"label": labels, "text": [label.replace("0", read_for_0, 1) for label in labels]})
    readings = readings.assign(confidence=[(number + 1) / len(labels) for number in range(len(labels))], ink_luminance=range(121))
    pairs = tables.pair_characters(readings)
    history = pd.DataFrame({"epoch": [1, 2], "exact_match": [0.5, 0.8], "val_exact_match": [0.6, 0.9], "val_loss": [0.5, 0.1]})
    found = {
        "ink": tables.score_by_ink(readings),
        "character": tables.score_by_character(pairs),
        "position": tables.score_by_position(pairs),
        "confidence": tables.score_by_confidence(readings),
        "confusion": tables.count_confusions(pairs),
        "learning_curves": history,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in found.items():
        rows.to_csv(folder / f"{name}.csv", index=False)
    sheet = draw_errors([Image.new("RGB", (60, 30), "white")], [[("0", read_for_0)]], [0.5])
    for name in ("errors", "steps"):
        (folder / f"{name}.png").write_bytes(encode_sheet(sheet))


def list_plots(models: tuple[str, ...]) -> list[object]:
    """List the plots of dvc.yaml without the stages that make them, and one of each of DVC's own templates."""
    pipeline = YAML(typ="safe").load(ROOT / "dvc.yaml")
    plots: list[object] = list(pipeline["plots"])
    for model in models:
        for plot in pipeline["stages"]["evaluate"]["do"]["plots"]:
            ((path, props),) = plot.items()
            named = {name: value.replace("${key}", model) for name, value in props.items() if name != "cache"}
            plots.append({path.replace("${key}", model): named})
    for template, axes in DVC_TEMPLATES.items():
        source = {"metrics/plots/cnn/confusion.csv": axes["y"]}
        plots.append({f"DVC {template}": {"template": template, "x": axes["x"], "y": source}})
    return plots


@pytest.fixture(scope="module")
def plots(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A repository with plots in two commits."""
    checkout = Checkout(tmp_path_factory.mktemp("plots"))
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", checkout.root], check=True)
    for name in ("config", "plots.html"):
        (checkout.root / ".dvc").mkdir(exist_ok=True)
        shutil.copy(ROOT / ".dvc" / name, checkout.root / ".dvc" / name)
    shutil.copytree(ROOT / ".dvc/plots", checkout.root / ".dvc/plots")
    YAML().dump({"plots": list_plots(("cnn", "crnn"))}, checkout.root / "dvc.yaml")
    for branch, read_for_0 in REVISIONS.items():
        checkout.git("checkout", "--quiet", "-B", branch)
        for model in ("cnn", "crnn"):
            write_plots(checkout.root / "metrics/plots" / model, read_for_0)
        checkout.git("add", "--all")
        checkout.git("commit", "--quiet", "--message", branch)
    return checkout


@contextmanager
def open_page(browser: Browser, page: Path) -> Iterator[Visit]:
    """Open a page, and wait until all charts are drawn."""
    with visit(browser, viewport={"width": 1200, "height": 900}) as opened:
        opened.page.goto(page.as_uri())
        for place in re.findall(r"vegaEmbed\('(#\w+)'", page.read_text(encoding="utf-8")):
            opened.page.locator(f"{place} svg").wait_for()
        yield opened


@pytest.fixture(scope="module")
def visited(plots: Checkout, browser: Browser) -> Iterator[Visit]:
    """The page that compares two commits."""
    plots.dvc("plots", "diff", *REVISIONS, "--targets", "metrics/.*", "Learning", "--out", "page")
    with open_page(browser, plots.root / "page/index.html") as opened:
        yield opened


def find_chart(visited: Visit, name: str) -> Locator:
    return visited.page.get_by_role("group", name=name, exact=True)


def test_a_request_that_a_page_makes_is_seen_and_refused(browser: Browser) -> None:
    with visit(browser) as opened:
        opened.page.set_content('<img src="http://localhost/picture.png"><script>console.log("words")</script>')
        opened.page.wait_for_load_state()
        assert opened.attempts == ["http://localhost/picture.png"]
        assert "words" in opened.messages


def test_the_page_asks_nothing_of_the_network_and_says_nothing(visited: Visit) -> None:
    assert visited.attempts == []
    assert visited.messages == []


def test_charts_are_drawn_by_the_libraries_that_are_named(visited: Visit) -> None:
    found = visited.page.evaluate("[vega.version, vegaLite.version, drawChart.version]")
    assert found == list(VERSIONS.values())


def test_the_templates_of_dvc_are_drawn(plots: Checkout, browser: Browser) -> None:
    plots.dvc("plots", "show", "DVC", "--out", "templates")
    with open_page(browser, plots.root / "templates/index.html") as opened:
        assert {template: opened.page.locator(f"#DVC_{template} .role-mark *").count() > 0 for template in DVC_TEMPLATES} == (
            dict.fromkeys(DVC_TEMPLATES, True)
        )
        assert opened.attempts == []


def test_every_share_has_its_interval_for_each_revision(visited: Visit) -> None:
    for model in ("cnn", "crnn"):
        chart = find_chart(visited, f"{model}: characters read right, by character")
        assert chart.locator(".mark-rule.role-mark line").count() == len(ALPHABET) * len(REVISIONS)
        assert chart.locator(".mark-symbol.role-mark path").count() == len(ALPHABET) * len(REVISIONS)


def test_revisions_differ_by_shape(visited: Visit) -> None:
    chart = find_chart(visited, "cnn: texts read right, by ink")
    shapes = {path.get_attribute("d") for path in chart.locator(".mark-symbol.role-mark path").all()}
    assert len(shapes) == len(REVISIONS)


@pytest.mark.parametrize("name", ["cnn: characters read right, by position", "crnn: texts read right, by confidence"])
def test_a_revision_stands_in_the_legend_once(visited: Visit, name: str) -> None:
    legend = find_chart(visited, name).locator(".role-legend-label text")
    assert legend.all_text_contents() == list(REVISIONS)


def test_confusion_has_totals_of_its_rows(visited: Visit) -> None:
    texts = find_chart(visited, "crnn: what characters are read as").locator(".mark-text.role-mark text").all_text_contents()
    assert texts.count("of 22") == len(ALPHABET) * len(REVISIONS)
    assert "21" in texts


def test_learning_curves_of_all_models_are_one_chart(visited: Visit) -> None:
    chart = find_chart(visited, "Learning curves of all models")
    assert chart.locator(".mark-line path").count() == 2 * len(REVISIONS) * len(("cnn", "crnn"))


def test_a_chart_has_its_numbers_below_it(visited: Visit) -> None:
    numbers = visited.page.locator("details", has_text="Numbers: cnn: characters read right, by position")
    numbers.locator("summary").click()
    # The rows are made when they are first asked for.
    numbers.locator("tr").first.wait_for()
    rows = [row.split("\t") for row in numbers.locator("tr").all_inner_texts()]
    assert rows[0] == ["position", "accuracy", "low", "high", "samples", "rev"]
    assert ["1", "1.0", "121", "better"] in [[row[0], row[1], row[4], row[5]] for row in rows]


def test_pictures_are_shown_and_named(visited: Visit) -> None:
    pictures = visited.page.locator("img")
    assert pictures.count() == 4 * len(REVISIONS)
    for picture in pictures.all():
        assert picture.evaluate("picture => picture.naturalWidth") > 0
        assert re.fullmatch(r"metrics/plots/c?r?nn/\w+\.png, (main|better)", picture.get_attribute("alt") or "")


def test_nothing_serious_keeps_people_from_reading_the_page(visited: Visit) -> None:
    barriers = visited.find_barriers()
    assert [(barrier["id"], [node["html"] for node in barrier["nodes"]]) for barrier in barriers] == []


def test_on_a_phone_charts_scroll_and_the_page_does_not(visited: Visit) -> None:
    wide = visited.page.viewport_size
    assert wide
    visited.page.set_viewport_size({"width": 400, "height": 800})
    assert visited.page.evaluate("document.documentElement.scrollWidth") == 400
    chart = find_chart(visited, "Learning curves of all models")
    assert chart.evaluate("chart => chart.scrollWidth > chart.clientWidth")
    visited.page.set_viewport_size(wide)
