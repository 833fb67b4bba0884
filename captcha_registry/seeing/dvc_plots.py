"""What `dvc plots` shows with: a page that holds all it needs, and templates of our charts.

`make charts` writes them again into `.dvc/`, where .dvc/config and dvc.yaml name them.
"""

import json
from collections.abc import Callable
from pathlib import Path

from captcha_registry.seeing import charts
from captcha_registry.seeing.vendored import read_scripts
from captcha_registry.workspace import write_atomically

PAGE_NAME = "plots.html"
TEMPLATES: dict[str, Callable[[], charts.Spec]] = {
    "accuracy": charts.draw_accuracy,
    "confusion_shares": charts.draw_confusion,
    "learning": charts.draw_learning,
    "reliability": charts.draw_reliability,
    "training": charts.draw_training,
}


def make_page() -> str:
    """Make the page in which DVC replaces `{plot_divs}`."""
    page = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    scripts = "\n".join(f"<script>{script}</script>" for script in read_scripts())
    return page.replace("{style}", json.dumps(charts.STYLE)).replace("{libraries}", scripts)


def make_files() -> dict[str, str]:
    """Make all files by their path below `.dvc/`."""
    templates = {f"plots/{name}.json": f"{json.dumps(draw(), indent=2)}\n" for name, draw in TEMPLATES.items()}
    return {PAGE_NAME: make_page(), **templates}


if __name__ == "__main__":
    for name, content in make_files().items():
        write_atomically(Path(".dvc") / name, content.encode())
