"""Write the results of all models, and the causes of their errors, as one HTML file: `python -m stages.report`.

Reads `models/`, `metrics/` and the datasets; writes `models/report.html`. `captcha-registry report --compare REV` writes a report
that also says what changed.
"""

import argparse
import time

from captcha_registry.ends import report_errors
from captcha_registry.errors import CommandLine
from captcha_registry.seeing.metrics import REPORT_PATH
from captcha_registry.seeing.report import compose_report, render_html
from captcha_registry.seeing.results import load_results
from captcha_registry.seeing.svg import start_vega
from captcha_registry.workspace import write_atomically


def main() -> None:
    """Write the report."""
    started = time.perf_counter()
    start_vega()
    content = render_html(compose_report(load_results()))
    write_atomically(REPORT_PATH, content)
    print(f"{REPORT_PATH}: {len(content) / 1e6:.2f} MB, {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    with report_errors():
        CommandLine(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
        main()
