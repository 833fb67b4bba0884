"""The report: what it says of results that are known, and how it looks in a real browser."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import chdir
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browsers import visit
from checkouts import OUTPUTS, Checkout
from conftest import ROOT, hash_files
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser
from ruamel.yaml import YAML
from scipy.stats import binomtest

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.readings import SCHEMA, describe_samples
from captcha_registry.recognition.card import ModelCard
from captcha_registry.seeing import report as report_module
from captcha_registry.seeing.change_section import write_p
from captcha_registry.seeing.charts import MONOSPACE, PALETTE, SANS, SHAPES
from captcha_registry.seeing.comparing import mcnemar
from captcha_registry.seeing.document import GAP, Code, Paragraph, Section, Table, align
from captcha_registry.seeing.health_section import find_ink
from captcha_registry.seeing.origin import describe_origin
from captcha_registry.seeing.report import MARKER, Report, compose_report, render_markdown
from captcha_registry.seeing.results import load_results
from captcha_registry.seeing.revision import find_changes
from captcha_registry.seeing.sections import find_answerable, percent
from captcha_registry.seeing.svg import CONFIG, DARK_PALETTE, NO_FONT

ANCHORS = ["results", "changes", "errors", "pairs", "confusion", "calibration", "slices", "learning", "health", "way"]
# What is read wrong, by the number of the sample in the test split.
WRONG_BEFORE = {0: "111", 1: "222", 2: "AB"}
WRONG_NOW = {2: "AB", 3: "<A>"}
MODEL = {"family": "cnn", "dataset": "tiny", "seed": 1}


@dataclass(frozen=True)
class ReportProject:
    """A checkout with a model `reader` that has read the tiny dataset, at the commits `ancient`, `before` and `now`."""

    checkout: Checkout
    ids: list[int]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.checkout.run("report", *arguments)


def write_results(root: Path, dataset: CaptchaDataset, wrong: dict[int, str]) -> None:
    """Write what `train` and `evaluate` leave of a model that reads all right but some samples."""
    test = dataset.split("test")
    labels = test.index["label"].to_pylist()
    texts = [wrong.get(number, label) for number, label in enumerate(labels)]
    columns = {"id": test.index["id"], "label": labels, "text": texts, "characters": [[0.9] * len(text) for text in texts]}
    columns |= {"confidence": [0.5 if number in wrong else 0.99 - number / 100 for number in range(len(texts))]}
    columns |= {"texts": [[text] * 3 for text in texts], "confidences": [[0.9, 0.05, 0.05]] * len(texts)}
    folder = root / "models/reader"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    readings = pa.table({field.name: pa.array(columns[field.name], field.type) for field in SCHEMA}, SCHEMA)
    pq.write_table(readings.replace_schema_metadata(describe_samples(dataset.manifest)), folder / "readings.parquet")
    pairs = [text if len(text) == len(labels[number]) and "<" not in text else None for number, text in wrong.items()]
    errors = {
        "id": pa.array([test.index["id"][number].as_py() for number in wrong], pa.int64()),
        "pair_text": pa.array(pairs, pa.string()),
        "pair_pixels": pa.array([pair and 40 for pair in pairs], pa.int32()),
        "cured_by": pa.array([["curve", "ink"] if number == 2 else None for number in wrong], pa.list_(pa.string())),
    }
    pq.write_table(pa.table(errors), folder / "errors.parquet")
    card = ModelCard(
        family="cnn",
        preset="fast",
        dataset="tiny",
        spec=dataset.manifest.spec,
        dataset_id=dataset.manifest.dataset_id,
        num_parameters=1_234,
        model_sha256="0" * 64,
    )
    (folder / "model.json").write_text(card.model_dump_json())
    (folder / "history.csv").write_text(
        "phase,epoch,exact_match,loss,val_exact_match,val_loss\n0,1,0.5,2.0,0.6,1.5\n0,2,0.8,1.0,0.9,0.5\n"
    )
    metrics = {"exact_match": 1 - len(wrong) / len(texts), "character_accuracy": 0.97, "expected_calibration_error": 0.01}
    (root / "metrics").mkdir(exist_ok=True)
    (root / "metrics/reader.json").write_text(json.dumps(metrics))


@pytest.fixture(scope="session")
def report_project(tiny_dataset: CaptchaDataset, tmp_path_factory: pytest.TempPathFactory) -> ReportProject:
    """Shared: read it, never write to it but for reports."""
    checkout = Checkout.create(tmp_path_factory.mktemp("reported"))
    root = checkout.root
    (root / ".gitignore").write_text("/*.html\n/*.md\n/wanted\n")
    shutil.copytree(tiny_dataset.root, root / "data/tiny")
    params = {"datasets": {"tiny": tiny_dataset.manifest.spec.model_dump(mode="json")}, "models": {"reader": MODEL}}
    YAML().dump(params, root / "params.yaml")
    outs = [f"models/reader/{name}" for name in ("model.json", "history.csv")]
    stage = {"cmd": "true", "params": ["models"], "metrics": [{"metrics/reader.json": {"cache": False}}]}
    new_outs = [f"models/reader/{name}" for name in ("readings.parquet", "errors.parquet")]
    for tag, wrong, epochs in (("ancient", {}, 1), ("before", WRONG_BEFORE, 1), ("now", WRONG_NOW, 2)):
        write_results(root, tiny_dataset, wrong)
        YAML().dump(params | {"models": {"reader": MODEL | {"fast": {"epochs": epochs}}}}, root / "params.yaml")
        tracked = outs if tag == "ancient" else [*outs, *new_outs]
        for name in new_outs if tag == "ancient" else ():
            (root / name).unlink()
        made = {"cmd": "true", "outs": [f"data/tiny/{name}" for name in OUTPUTS[:4]]}
        YAML().dump({"stages": {"make": made, "evaluate": stage | {"outs": tracked}}}, root / "dvc.yaml")
        checkout.dvc("commit", "--force", "--quiet")
        checkout.commit(tag)
        checkout.git("tag", tag)
    return ReportProject(checkout, tiny_dataset.split("test").index["id"].to_pylist())


@pytest.fixture(scope="session")
def html(report_project: ReportProject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of `now`, compared with `before`."""
    path = tmp_path_factory.mktemp("html") / "report.html"
    done = report_project.run("--compare", "before", "--output", str(path))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return path


def compose(project: ReportProject, revision: str | None = None) -> Report:
    with chdir(project.checkout.root):
        results = load_results()
        return compose_report(results, find_changes(revision, results) if revision else None)


def read_text(report: Report, anchor: str) -> str:
    """Return what a section says, without markup."""
    (section,) = [section for section in report.sections if section.anchor == anchor]
    return render_markdown(replace(report, sections=[section])).replace("<code>", "").replace("</code>", "")


def test_a_project_without_models_has_a_report_that_says_so() -> None:
    report = compose_report([])
    assert "There is no model" in render_markdown(report)
    assert "There is no model" in report_module.render_html(report).decode()


def test_the_sections_come_in_the_order_in_which_people_ask(report_project: ReportProject) -> None:
    assert [section.anchor for section in compose(report_project).sections] == ANCHORS


def test_what_was_fixed_and_broken_since_a_revision_is_shown_with_its_chance(report_project: ReportProject) -> None:
    before = hash_files(report_project.checkout.root)
    with chdir(report_project.checkout.root):
        changes = find_changes("before", load_results())
    comparison = changes.comparisons["reader"]
    assert comparison.fixed["id"].tolist() == sorted(report_project.ids[number] for number in (0, 1))
    assert comparison.broken["id"].tolist() == [report_project.ids[3]]
    assert comparison.p_value == 1.0
    assert [(change.field, change.old, change.new) for change in changes.params] == [("models.reader.fast.epochs", 1, 2)]
    assert [change.field for change in changes.metrics["reader"]] == ["exact_match"]
    written = {name for name, digest in hash_files(report_project.checkout.root).items() if before.get(name) != digest}
    assert {name for name in written if not name.startswith((".dvc/tmp", ".git/"))} == set()


@settings(max_examples=20)
@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_exact_binomial_test(num_fixed: int, num_broken: int) -> None:
    changed = num_fixed + num_broken
    expected = binomtest(num_fixed, changed).pvalue if changed else 1.0
    assert mcnemar(num_fixed, num_broken) == pytest.approx(expected, rel=1e-8)


def test_mcnemar_of_very_many_changes_is_a_number() -> None:
    assert mcnemar(20_000, 1_000) == 0.0
    assert mcnemar(20_000, 20_000) == 1.0


def test_without_a_revision_nothing_is_compared_and_the_command_is_named(report_project: ReportProject) -> None:
    assert "captcha-registry report --compare main" in read_text(compose(report_project), "changes").replace("&#45;", "-")


def test_a_revision_without_readings_says_so_and_shows_its_other_changes(report_project: ReportProject) -> None:
    said = read_text(compose(report_project, "ancient"), "changes")
    assert "has no readings, as it is older than they are" in said
    assert "git switch --detach" in said
    assert "models.reader.fast.epochs" in said.replace("&#46;", ".")


def test_readings_that_are_nowhere_are_said_to_be_missing(report_project: ReportProject, tmp_path: Path) -> None:
    copy = report_project.checkout.copy_to(tmp_path)
    lock = YAML(typ="safe").load(copy.git("show", "before:dvc.lock"))
    (md5,) = [out["md5"] for out in lock["stages"]["evaluate"]["outs"] if out["path"].endswith("readings.parquet")]
    (copy.root / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}").unlink()
    said = read_text(compose(replace(report_project, checkout=copy), "before"), "changes")
    assert "is not on the remote: its owner has to run dvc push --all-commits" in said


def test_readings_of_pictures_that_were_drawn_otherwise_are_not_compared(report_project: ReportProject) -> None:
    with chdir(report_project.checkout.root):
        results = [replace(result, drawing="another") for result in load_results()]
        changes = find_changes("before", results)
    assert not changes.comparisons
    assert "other pictures" in changes.lacking["reader"]


def test_parameters_are_listed_with_those_that_params_yaml_leaves_out(report_project: ReportProject) -> None:
    rows = {row[0]: row[1] for part in compose(report_project).sections[-1].parts if part.kind == "table" for row in part.rows}
    expected = {"preset": "fast", "fast.epochs": "2", "fast.optimizer": "muon", "datasets.tiny.width": "48"}
    assert {name: rows[name] for name in expected} == expected
    assert not any(name.startswith("lab.") for name in rows)


def test_a_pipe_or_a_link_in_the_place_of_a_report_is_written_to_and_stays(report_project: ReportProject, tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("file")
    # Without waiting for a writer, who may never come.
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)) as reader:
        for path in (pipe, link):
            done = report_project.run("--format", "markdown", "--output", str(path))
            assert done.returncode == 0, done.stderr
        assert (pipe.is_fifo(), link.is_symlink()) == (True, True)
        assert reader.read() == (tmp_path / "file").read_text()
    link.unlink()
    link.symlink_to("/dev/full")
    done = report_project.run("--format", "markdown", "--output", str(link))
    assert (done.returncode, done.stderr.startswith(f"error: {link}: No space left on device: free")) == (2, True), done.stderr


def say_origin(project: ReportProject) -> str:
    with chdir(project.checkout.root):
        origin = describe_origin(load_results())
    assert origin is not None
    return "".join(origin.parts)


def test_results_are_of_a_commit_only_if_it_records_them(
    report_project: ReportProject, tiny_dataset: CaptchaDataset, tmp_path: Path
) -> None:
    copy = report_project.checkout.copy_to(tmp_path)
    project, commit = replace(report_project, checkout=copy), copy.git("rev-parse", "HEAD")
    (copy.root / "dvc.yaml").write_text(f"{(copy.root / 'dvc.yaml').read_text()}# no result\n")
    assert say_origin(project) == f"The results are those of {commit}."
    write_results(copy.root, tiny_dataset, {1: "222"})
    (copy.root / "models/reader/errors.parquet").unlink()
    changed = "models/reader/readings.parquet, metrics/reader.json"
    assert say_origin(project) == f"These results are not committed: {changed} are not what {commit} has."
    copy.git("restore", "metrics")
    copy.dvc("checkout", "--force", "--quiet")
    assert say_origin(project) == f"The results are those of {commit}."
    with (copy.root / "params.yaml").open("a") as file:
        file.write("more: 1\n")
    assert say_origin(project) == f"These results are not committed: params.yaml is not what {commit} has."
    assert f"params.yaml is not what {commit} has" in re.sub("<.*?>", "", copy.run("report", "--format", "markdown").stdout)
    # A branch was changed, and its results were not brought.
    copy.git("restore", "params.yaml", "dvc.yaml")
    copy.git("checkout", "--quiet", "before")
    assert "not committed: models/reader/readings.parquet, models/reader/errors.parquet are" in say_origin(project)
    copy.git("rm", "--quiet", "--cached", "dvc.lock")
    copy.git("commit", "--quiet", "--message", "no lock")
    assert "not committed: models/reader/model.json, " in say_origin(project)
    # As a merge may leave it.
    for content in ("", "<<<<<<< HEAD\nschema: 2\n"):
        (copy.root / "dvc.lock").write_text(content)
        copy.git("add", "dvc.lock")
        copy.git("commit", "--quiet", "--message", "a broken lock")
        assert "not committed: models/reader/model.json, " in say_origin(project)


def test_an_unknown_revision_is_named(report_project: ReportProject) -> None:
    # An empty one is what a variable that is not set leaves.
    for revision in ("nowhere", ""):
        done = report_project.run("--compare", revision)
        assert (done.returncode, f"there is no revision {revision!r} here" in done.stderr) == (2, True)


def test_a_report_goes_to_a_file_or_is_printed(report_project: ReportProject, html: Path) -> None:
    done = report_project.run("--compare", "before", "--output", "-")
    assert (done.returncode, done.stdout) == (0, f"{html.read_text()}\n")
    done = report_project.run("--output", str(html.parent))
    assert (done.returncode, f"is a folder; expected a file, such as {html}" in done.stderr) == (2, True)


@pytest.mark.parametrize("output_format", ["html", "markdown"])
def test_only_a_report_or_an_empty_file_is_replaced_by_a_report(
    report_project: ReportProject, tmp_path: Path, output_format: str
) -> None:
    path = tmp_path / "report"
    path.touch()
    for _ in range(2):
        done = report_project.run("--format", output_format, "--output", str(path))
        assert (done.returncode, path.stat().st_size > 100) == (0, True), done.stderr
    path.write_text("models: {}\n")
    done = report_project.run("--format", output_format, "--output", str(path))
    assert (done.returncode, "is no report of this command: name another file with --output" in done.stderr) == (2, True)
    assert path.read_text() == "models: {}\n"


def test_a_model_that_was_not_evaluated_is_named(report_project: ReportProject, tmp_path: Path) -> None:
    copy = report_project.checkout.copy_to(tmp_path)
    (copy.root / "models/reader/readings.parquet").unlink()
    done = copy.run("report")
    assert (done.returncode, "readings.parquet is missing: run `dvc repro`" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("metrics/reader.json", "{", "metrics/reader.json is not valid JSON (.*): run `dvc repro`, or take the committed one"),
        ("metrics/reader.json", '{"cer": NaN}', r"metrics/reader.json is not valid JSON \(NaN is no number\): run `dvc repro`"),
        ("metrics/reader.json", "[]", "metrics/reader.json holds a list; expected an object"),
        ("metrics/reader.json", '{"a": 1}', "metrics/reader.json has no character_accuracy; it holds a: run `dvc repro`"),
        (
            "models/reader/history.csv",
            "",
            "models/reader/history.csv lacks epochs with a number for each of loss, .*: run `dvc checkout",
        ),
        (
            "models/reader/history.csv",
            "loss,exact_match,val_loss,val_exact_match\n1,2,3\n",
            "history.csv lacks epochs with a number for each of loss, ",
        ),
        ("params.yaml", "models:\n", "params.yaml: models is empty; expected names with their settings, or {} for none"),
    ],
)
def test_a_file_that_somebody_damaged_is_named_with_what_restores_it(
    report_project: ReportProject, path: str, content: str, message: str
) -> None:
    before = (report_project.checkout.root / path).read_text()
    try:
        (report_project.checkout.root / path).write_text(content)
        done = report_project.run("--format", "markdown")
    finally:
        (report_project.checkout.root / path).write_text(before)
    assert done.returncode == 2
    assert re.search(message, done.stderr)


def test_a_report_without_the_dataset_says_what_brings_it(report_project: ReportProject, tmp_path: Path) -> None:
    copy = report_project.checkout.copy_to(tmp_path)
    shutil.rmtree(copy.root / "data/tiny")
    report = compose(replace(report_project, checkout=copy))
    assert report.pictures == {}
    for anchor in ("errors", "health"):
        assert "dvc pull --allow-missing" in read_text(report, anchor)


def test_errors_are_aligned_and_say_what_cures_them(report_project: ReportProject, tiny_dataset: CaptchaDataset) -> None:
    (gallery,) = [part for part in compose(report_project).sections[2].parts if part.kind == "gallery"]
    shown = {item.id: item for item in gallery.items}
    labels = tiny_dataset.split("test").index["label"].to_pylist()
    item = shown[report_project.ids[2]]
    assert (item.drawn, item.read) == align(labels[2], "AB")
    assert item.remarks == ("50.0\N{NO-BREAK SPACE}% certain", "right if: no curve, full ink")


@settings(max_examples=20)
@given(st.text("0123AB", max_size=8), st.text("0123AB", max_size=8))
def test_an_alignment_holds_both_texts_one_above_the_other(label: str, text: str) -> None:
    drawn, read = align(label, text)
    assert len(drawn) == len(read)
    assert (drawn.replace(GAP, ""), read.replace(GAP, "")) == (label, text)
    assert (GAP, GAP) not in zip(drawn, read, strict=True)


@pytest.mark.parametrize(
    ("confidence", "right", "target", "expected"),
    [
        pytest.param([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1], 1.0, (0.5, 0.8), id="until the first error"),
        pytest.param([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1], 0.75, (1.0, 0.6), id="an error that others make up for"),
        pytest.param([0.9, 0.8, 0.8, 0.6], [1, 1, 0, 0], 1.0, (0.25, 0.9), id="readings of one confidence stay together"),
        pytest.param([0.9, 0.8], [0, 0], 0.5, (0.0, 1.0), id="nothing"),
    ],
)
def test_as_many_are_answered_as_the_target_allows(
    confidence: list[float], right: list[int], target: float, expected: tuple[float, float]
) -> None:
    readings = pd.DataFrame({"confidence": confidence, "right": [bool(value) for value in right]})
    assert find_answerable(readings, target) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("share", "written"),
    [
        (1.0, "100.00 %"),
        (0.999999, "> 99.99 %"),
        (0.9999, "99.99 %"),
        (0.5, "50.00 %"),
        (0.0001, "0.01 %"),
        (1e-6, "< 0.01 %"),
        (0.0, "0.00 %"),
    ],
)
def test_what_is_not_all_is_never_rounded_to_all_nor_something_to_nothing(share: float, written: str) -> None:
    assert percent(share).replace("\N{NO-BREAK SPACE}", " ") == written


def test_a_column_of_numbers_or_ranges_is_one_whatever_else_begins_with_a_digit() -> None:
    columns = {"5": True, "99.86\N{NO-BREAK SPACE}%": True, "1.00 % to > 99.99 %": True, "40-79": True, "-": False}
    columns |= {"90 % drawn meanwhile": False, "< 0.01 %": True, "12,800": True, Code("12"): False, "192x64": False}
    table = Table.of("caption", list(columns), [list(columns)])
    assert [number in table.numeric for number in range(len(columns))] == list(columns.values())


def test_chance_is_never_said_to_be_impossible() -> None:
    assert [write_p(value) for value in (1.0, 0.012345, 2e-15, 1e-16, 0.0)] == [
        "p = 1",
        "p = 0.012",
        "p = 2e-15",
        "p < 1e-15",
        "p < 1e-15",
    ]


def test_ink_is_found_where_pixels_differ_from_the_ground(tiny_dataset: CaptchaDataset) -> None:
    shares = find_ink(tiny_dataset[:10])
    assert shares.shape == (32, 48)
    assert 0 < shares.mean() < 0.6
    assert shares.max() <= 1
    assert shares[12:20, 12:36].mean() > shares[[0, -1]].mean()


def test_a_rerun_in_another_process_has_equal_bytes_and_starts_no_framework(report_project: ReportProject, html: Path) -> None:
    code = (
        "import sys; from captcha_registry.cli import main\n"
        "try: main(['report', '--compare', 'before', '--output', 'again.html'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'torch', 'jax'}))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    root = report_project.checkout.root
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert (root / "again.html").read_bytes() == html.read_bytes()


def test_pictures_take_no_more_room_than_there_is(report_project: ReportProject, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(compose(report_project).pictures) == 2
    sizes = sorted(len(png) for png in compose(report_project).pictures.values())
    monkeypatch.setattr(report_module, "MAX_PICTURE_BYTES", sizes[-1])
    report = compose(report_project)
    assert len(report.pictures) == 1
    assert "the report would be too large" in read_text(report, "errors")


def test_each_picture_is_in_the_file_once(html: Path) -> None:
    text = html.read_text()
    pictures = re.findall(r'<symbol id="([^"]+)"', text)
    assert len(pictures) == len(set(pictures)) >= 4
    assert all(f'href="#{key}"' in text for key in pictures)
    assert html.stat().st_size < 300_000


def test_a_report_with_as_many_pictures_as_it_may_hold_has_3_mb_at_most(html: Path) -> None:
    text = html.read_text()
    pictures = sum(map(len, re.findall(r'<image [^>]*base64,([^"]+)"', text)))
    assert pictures > 10_000
    # What else there is grows with the models, by 200 kB for one that knows 36 characters.
    assert len(text) - pictures + report_module.MAX_PICTURE_BYTES * 4 / 3 < 3_000_000 - 4 * 200_000


def test_markdown_begins_with_its_marker_and_says_what_html_says(report_project: ReportProject) -> None:
    done = report_project.run("--compare", "before", "--format", "markdown")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == MARKER
    titles = [section.title for section in compose(report_project).sections]
    assert re.findall(r"^## (.*)$", done.stdout, re.MULTILINE) == titles


def test_no_text_of_a_dataset_is_markup(report_project: ReportProject, html: Path) -> None:
    text = html.read_text()
    assert "<A>" not in text
    assert "<mark>&lt;</mark>" in text
    page = render_markdown(compose(report_project))
    assert "<A>" not in page
    assert "&#60;A&#62;" in page


def test_markdown_of_any_size_fits_into_a_comment() -> None:
    rows = [[Code("@|`<" * 20), "x" * 200]] * 100
    sections = [Section(f"s{n}", f"Section {n}", [Table.of("caption", ("a", "b"), rows)] * 20) for n in range(10)]
    text = render_markdown(Report([Section("first", "First", [Paragraph.of("kept")]), *sections], {}))
    assert len(text.encode()) < 65_536
    assert "kept" in text
    assert re.search(r"The last \d+ sections do not fit here", text)
    assert "@" not in text


def measure_contrast(one: str, other: str) -> float:
    """Compute the contrast of two colours. Source: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio."""
    channels = [[int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)] for colour in (one, other)]
    linear = [[c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour] for colour in channels]
    dark, light = sorted(0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in linear)
    return (light + 0.05) / (dark + 0.05)


def test_every_series_stands_out_from_the_ground_by_day_and_by_night(html: Path) -> None:
    grounds = re.findall(r"--paper: (#[0-9a-f]{6})", html.read_text())
    assert grounds == ["#ffffff", "#14181d", "#ffffff"]
    for palette, ground in ((PALETTE, grounds[0]), (DARK_PALETTE, grounds[1])):
        assert len(set(palette)) == len(PALETTE) == len(SHAPES)
        assert [colour for colour in palette if measure_contrast(colour, ground) < 3] == []


def test_charts_take_all_colours_from_the_page(html: Path) -> None:
    charts = re.findall(r'<svg role="img".*?</svg>', html.read_text(), re.DOTALL)
    colours = {colour for chart in charts for colour in re.findall(r'(?:fill|stroke)="([^"]+)"', chart)}
    assert colours == {"none", "currentColor", "var(--line)", "var(--series-1)"}


def test_charts_take_the_same_room_whatever_fonts_a_machine_has(html: Path) -> None:
    def find_fonts(settings: object) -> set[object]:
        parts = settings.values() if isinstance(settings, dict) else []
        named = (
            {value for name, value in settings.items() if name.lower().endswith("font")} if isinstance(settings, dict) else set()
        )
        return named.union(*map(find_fonts, parts))

    # Of these, the first comes with what draws, and the second is no font.
    assert find_fonts(CONFIG) == {SANS, NO_FONT}
    assert set(re.findall(r'font-family="([^"]+)"', html.read_text())) == {SANS, MONOSPACE}


def test_a_limit_on_addresses_is_named_where_it_would_end_the_process() -> None:
    code = "from captcha_registry.seeing.svg import start_vega; start_vega()"
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\n{code}"
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=False)
    assert "UserError: the report's charts are drawn by V8" in done.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.peers
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"viewport": {"width": 1200, "height": 900}}, id="light"),
        pytest.param({"viewport": {"width": 1200, "height": 900}, "color_scheme": "dark"}, id="dark"),
        pytest.param({"viewport": {"width": 390, "height": 844}}, id="narrow"),
    ],
)
def test_a_browser_asks_for_nothing_says_nothing_and_everybody_can_read_it(
    browser: Browser, html: Path, options: dict[str, object]
) -> None:
    with visit(browser, **options) as visited:
        page = visited.page
        page.goto(html.as_uri())
        assert [(each["id"], each["nodes"][0]["html"]) for each in visited.find_barriers()] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("svg[role=img] use").evaluate_all("uses => uses.every(use => use.getBoundingClientRect().width > 50)")
        assert page.locator("figure svg").evaluate_all("all => all.every(chart => chart.getBoundingClientRect().height > 50)")
        assert (visited.attempts, visited.messages) == ([], [])


@pytest.mark.peers
def test_a_browser_without_javascript_shows_all_and_folds_out_numbers(browser: Browser, html: Path) -> None:
    with visit(browser, java_script_enabled=False) as visited:
        visited.page.goto(html.as_uri())
        assert visited.page.locator("h2").all_inner_texts() == visited.page.locator("nav a").all_inner_texts()
        numbers = visited.page.locator("figure details").first
        assert not numbers.locator("table").is_visible()
        numbers.locator("summary").click()
        assert numbers.locator("table").is_visible()
        assert (visited.attempts, visited.messages) == ([], [])


@pytest.mark.peers
def test_print_shows_the_numbers_that_a_screen_folds(browser: Browser, html: Path) -> None:
    with visit(browser) as visited:
        visited.page.goto(html.as_uri())
        visited.page.emulate_media(media="print", color_scheme="dark")
        assert visited.page.locator("figure details table").first.is_visible()
        assert visited.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


FAKE_GH = """\
import json, os, pathlib, shutil, sys
state = pathlib.Path(os.environ["GH_STATE"])
words = sys.argv[1:]
calls = json.loads((state / "calls.json").read_text())
content = sys.stdin.read() if "--input" in words else None
(state / "calls.json").write_text(json.dumps([*calls, [words, content]]))
fields = dict(words[n + 1].split("=", 1) for n, word in enumerate(words) if word == "-f")
if words[:2] == ["run", "download"]:
    shutil.copytree(state / "artifact", words[words.index("--dir") + 1])
elif words[:3] == ["api", "--method", "GET"] and "--slurp" in words:
    path = next(word for word in words if word.startswith("repos/"))
    found = json.loads((state / (path.replace("/", "_") + ".json")).read_text())
    print(json.dumps([[each for each in page if fields.get("head") in (None, each.get("label"))] for page in found]))
elif words[1:3] not in (["--method", "POST"], ["--method", "PATCH"]):
    sys.exit(f"unknown: {words}")
"""
BOT = {"login": "github-actions[bot]"}


@dataclass(frozen=True)
class Host:
    """A folder with a `gh` that answers from files and notes what it is asked, and the step that posts a report."""

    root: Path

    @classmethod
    def create(cls, root: Path, report: str, comments: list[list[dict[str, object]]]) -> "Host":
        (root / "bin").mkdir()
        (root / "bin/gh.py").write_text(FAKE_GH)
        # The path of a Python after `#!` may hold no space.
        (root / "bin/gh").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$0.py" "$@"\n')
        (root / "bin/gh").chmod(0o755)
        (root / "artifact").mkdir()
        (root / "artifact/report.md").write_text(report)
        (root / "calls.json").write_text("[]")
        pulls = [
            {"number": 7, "label": "fork:patch", "head": {"sha": "a" * 40}},
            {"number": 8, "label": "x:y", "head": {"sha": "b"}},
        ]
        (root / "repos_own_project_pulls.json").write_text(json.dumps([pulls]))
        (root / "repos_own_project_issues_7_comments.json").write_text(json.dumps(comments))
        return cls(root)

    def post(self, sha: str = "a" * 40) -> subprocess.CompletedProcess[str]:
        """Run the step as GitHub would."""
        workflow = YAML(typ="safe").load(ROOT / "examples/ci/report-comment.yml")
        (step,) = workflow["jobs"]["comment"]["steps"]
        given = {
            "REPO": "own/project",
            "RUN": "5",
            "RUN_URL": "https://host/5",
            "HEAD": "fork:patch",
            "SHA": sha,
            "GH_TOKEN": "x",
        }
        assert set(step["env"]) == set(given)
        environment = (
            os.environ | given | {"GH_STATE": str(self.root), "PATH": f"{self.root}/bin{os.pathsep}{os.environ['PATH']}"}
        )
        (self.root / "step.py").write_text(step["run"])
        command = [sys.executable, "step.py"]
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)

    def list_writes(self) -> list[tuple[str, str, str]]:
        """List the calls that change something: the method, the place, and the body."""
        calls = json.loads((self.root / "calls.json").read_text())
        return [(words[2], words[3], json.loads(content)["body"]) for words, content in calls if content]


def test_the_first_report_of_a_pull_request_is_posted(report_project: ReportProject, tmp_path: Path) -> None:
    report = report_project.run("--compare", "before", "--format", "markdown").stdout
    others = [{"id": 1, "user": {"login": "somebody"}, "body": f"{MARKER}\ncopied"}, {"id": 2, "user": BOT, "body": "of another"}]
    host = Host.create(tmp_path, report, [others])
    done = host.post()
    assert done.returncode == 0, done.stderr
    ((method, place, body),) = host.list_writes()
    assert (method, place) == ("POST", "repos/own/project/issues/7/comments")
    assert body.startswith(report[:5_000])
    assert "https://host/5#artifacts" in body


def test_a_later_report_takes_the_place_of_the_last_one(tmp_path: Path) -> None:
    pages = [[{"id": 1, "user": BOT, "body": "of another"}], [{"id": 9, "user": BOT, "body": f"{MARKER}\nold"}]]
    host = Host.create(tmp_path, f"{MARKER}\nhello @everybody\n", pages)
    done = host.post()
    assert done.returncode == 0, done.stderr
    ((method, place, body),) = host.list_writes()
    assert (method, place) == ("PATCH", "repos/own/project/issues/comments/9")
    assert "@everybody" not in body


@pytest.mark.parametrize(
    ("report", "sha", "code", "said"),
    [
        pytest.param(f"{MARKER}\nx", "c" * 40, 0, "has newer commits", id="an older commit"),
        pytest.param("anything", "a" * 40, 1, "does not begin with the marker", id="no report"),
        pytest.param(f"{MARKER}\n{'x' * 66_000}", "a" * 40, 1, "too long", id="too long"),
    ],
)
def test_what_is_no_report_of_the_newest_commit_is_not_posted(
    report: str, sha: str, code: int, said: str, tmp_path: Path
) -> None:
    host = Host.create(tmp_path, report, [[]])
    done = host.post(sha)
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stderr
    assert host.list_writes() == []


def test_what_runs_code_of_a_pull_request_may_write_nothing_and_the_other_runs_none() -> None:
    workflows = {name: YAML(typ="safe").load(ROOT / f"examples/ci/{name}.yml") for name in ("report", "report-comment")}
    assert workflows["report"]["permissions"] == {"contents": "read"}
    assert not re.search(r"\$\{\{ *secrets", (ROOT / "examples/ci/report.yml").read_text())
    assert workflows["report-comment"]["on"]["workflow_run"]["workflows"] == [workflows["report"]["name"]]
    steps = [step for workflow in workflows.values() for job in workflow["jobs"].values() for step in job["steps"]]
    # What the event says, such as the name of a branch, is a stranger's: it comes in variables, never in a script.
    assert all("${{" not in step.get("run", "") for step in steps)
    assert not [step for step in workflows["report-comment"]["jobs"]["comment"]["steps"] if "uses" in step]


def test_the_steps_that_fetch_and_write_run(report_project: ReportProject, tmp_path: Path) -> None:
    copy = report_project.checkout.copy_to(tmp_path)
    copy.dvc("push", "--quiet")
    shutil.rmtree(copy.root / "models/reader")
    shutil.rmtree(copy.root / ".dvc/cache")
    steps = {step.get("name"): step for step in YAML(typ="safe").load(ROOT / "examples/ci/report.yml")["jobs"]["report"]["steps"]}
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "BASE": "now",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    for name in ("Fetch what the report reads", "Write the report"):
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", steps[name]["run"]]
        done = subprocess.run(command, cwd=copy.root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "summary").read_text() == (copy.root / "report.md").read_text()
    assert (copy.root / "report.html").stat().st_size > 10_000
