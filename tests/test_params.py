"""params.yaml is read strictly, and what is wrong with it is said before anything is written."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT, Project
from gto.constants import name_re
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.spec import DatasetSpec, SplitRule
from captcha_registry.errors import UserError
from captcha_registry.generation.executors import local_processes
from captcha_registry.params import NAME, ParamsError, load_section, read_params
from captcha_registry.recognition.recipe import CnnParams, CrnnParams, load_model_params
from stages import check

GOOD = """\
datasets:
  tiny:
    alphabet: "0123456789"
    length: 2
    width: 48
    height: 32
    count: 60
    shard_size: 6
    seed: 7
drawing:
  executor: local
  scheduler: tcp://127.0.0.1:8786
split:
  test_size: 0.2
  by: shard
  seed: 1
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write_file(content: str) -> Path:
        path = tmp_path / "params.yaml"
        path.write_text(content, encoding="utf-8")
        return path

    return write_file


def test_a_section_becomes_a_frozen_object(write: Callable[[str], Path]) -> None:
    spec = load_section(DatasetSpec, "datasets.tiny", write(GOOD))
    assert (spec.alphabet, spec.count, spec.num_shards) == ("0123456789", 60, 10)
    with pytest.raises(ValueError, match="frozen"):
        spec.count = 61  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("count:", "cuont:", "datasets.tiny.cuont is not a known key; did you mean `count`?", id="typing error"),
        pytest.param("seed: 7", "seed: 7\n    hue: 1", "hue is not a known key; known keys: alphabet, length", id="unknown key"),
        pytest.param(
            '    alphabet: "0123456789"\n',
            "",
            "datasets.tiny.alphabet is missing; expected keys: alphabet, length",
            id="missing key",
        ),
        pytest.param(
            '"0123456789"', "0123456789", "alphabet is 123456789; expected text: put it in quotes", id="unquoted number"
        ),
        pytest.param('"0123456789"', '"0"', "alphabet is '0'; expected at least 2 characters", id="short alphabet"),
        pytest.param('"0123456789"', '"0 é"', r"alphabet: holds [' ', 'é']; expected printable ASCII", id="strange character"),
        pytest.param('"0123456789"', '"0110"', r"alphabet: repeats ['0', '1']; expected each character once", id="repeated"),
        pytest.param("count: 60", "count: 60.0", "datasets.tiny.count is 60.0; expected a whole number", id="float count"),
        pytest.param("count: 60", "count: 1e3", "datasets.tiny.count is 1000.0; expected a whole number", id="scientific count"),
        pytest.param("count: 60", 'count: "60"', "datasets.tiny.count is '60'; expected a whole number", id="quoted count"),
        pytest.param("count: 60", "count: true", "datasets.tiny.count is True; expected a whole number", id="bool count"),
        pytest.param("count: 60", "count: -5", "datasets.tiny.count is -5; expected greater than or equal to 1", id="negative"),
        pytest.param("count: 60", "count: 1000000001", "count is 1000000001; expected less than or equal to", id="too many"),
        pytest.param("width: 48", "width: 15", "datasets.tiny.width is 15; expected greater than or equal to 16", id="narrow"),
        pytest.param("length: 2", "length:", "datasets.tiny.length is empty; expected a whole number", id="empty value"),
        *(
            pytest.param("length: 2", f"length: {text}", f"a whole number, or a range such as {{min: {known}}}", id=text)
            for text, known in (("4-6", "4, max: 6"), ("[4, 6]", "4, max: 6"), ("4 or more", "3, max: 6"))
        ),
        pytest.param("length: 2", "length: 17", "length is 17; expected less than or equal to 16", id="long"),
        pytest.param(
            "length: 2", "length: {min: 5, max: 3}", "length: min is 5 and max is 3; expected min up to max", id="order"
        ),
        pytest.param("length: 2", "length: {min: 0, max: 3}", "length.min is 0; expected greater than or", id="no character"),
        pytest.param("length: 2", "length: {min: 1}", "length.max is missing; expected keys: min, max", id="half a range"),
        pytest.param("seed: 7", "seed: 7\n    style: old", "style is 'old'; expected 'stock' or 'classic'", id="style"),
        pytest.param(
            "seed: 7",
            "seed: 7\n    fonts: [../x.ttf]",
            "fonts.0 is '../x.ttf'; expected the name of a file in fonts/:",
            id="font outside",
        ),
        pytest.param(
            "seed: 7", "seed: 7\n    font_sizes: [4]", "font_sizes.0 is 4; expected greater than or equal to 8", id="tiny font"
        ),
        pytest.param("seed: 7", "seed: 7\n    font_sizes: []", "font_sizes is []; expected at least 1 item", id="no font size"),
        pytest.param("seed: 7", "seed: 7\n    ink: {min: 9, max: 3}", "ink: min is 9 and max is 3; expected min", id="ink"),
        pytest.param("seed: 7", "seed: 7\n    ink: {min: 0, max: 256}", "ink.max is 256; expected less than or", id="channel"),
        pytest.param("seed: 7", "seed: 7\n    ink: 9", "ink is 9; expected the keys min, max, each with a value", id="one ink"),
        pytest.param("seed: 7", "seed: 7\n    dots: -1", "dots is -1; expected greater than or equal to 0", id="dots"),
        pytest.param("  tiny:", "  tin:", "datasets.tiny is missing; found: tin", id="missing section"),
        pytest.param("datasets:", "dataset:", "datasets is missing; found: dataset, drawing, split", id="missing top section"),
    ],
)
def test_a_wrong_dataset_is_refused_with_key_value_and_remedy(
    write: Callable[[str], Path], old: str, new: str, message: str
) -> None:
    assert old in GOOD
    path = write(GOOD.replace(old, new, 1))
    with pytest.raises(ParamsError) as error:
        load_section(DatasetSpec, "datasets.tiny", path)
    assert all(line.strip().startswith(f"{path}: datasets") for line in str(error.value).splitlines())
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("0.2", "1.5", "split.test_size is 1.5; expected less than 1", id="above 1"),
        pytest.param("0.2", "0.0", "split.test_size is 0.0; expected greater than 0", id="zero"),
        pytest.param("0.2", ".nan", "split.test_size is nan; expected", id="not a number"),
        pytest.param("0.2", '"0.2"', "split.test_size is '0.2'; expected a number", id="quoted"),
        pytest.param(
            "shard\n", "shards\n", "split.by is 'shards'; expected 'shard', 'sample', 'label', 'sample_hash' or", id="unknown way"
        ),
        pytest.param("seed: 1", "seed: 4294967296", "split.seed is 4294967296; expected less than 4294967296", id="large seed"),
    ],
)
def test_a_wrong_split_is_refused(write: Callable[[str], Path], old: str, new: str, message: str) -> None:
    head, section = GOOD.split("split:")
    assert old in section
    with pytest.raises(ParamsError) as error:
        load_section(SplitRule, "split", write(f"{head}split:{section.replace(old, new, 1)}"))
    assert message in str(error.value)


def test_all_errors_of_a_section_are_told_at_once(write: Callable[[str], Path]) -> None:
    path = write(GOOD.replace("count: 60", "count: 0").replace("width: 48", "width: 1"))
    with pytest.raises(ParamsError) as error:
        load_section(DatasetSpec, "datasets.tiny", path)
    assert [line.split(" is ")[0].split(".")[-1] for line in str(error.value).splitlines()] == ["width", "count"]


SAID_OF_TINY = {"alphabet": "01", "count": 60}
SAID_OF_SMALL: dict[str, dict[str, object]] = {
    "cnn": {"family": "cnn", "dataset": "digits"},
    "crnn": {"family": "crnn", "dataset": "alnum", "fast": {"emphasis": {"characters": "0O", "weight": 5, "until": 0.85}}},
}


def test_a_dataset_says_only_what_differs_from_the_defaults(write: Callable[[str], Path]) -> None:
    spec = load_section(DatasetSpec, "datasets.tiny", write('datasets: {tiny: {alphabet: "01", count: 60}}'))
    assert spec.model_dump(exclude_defaults=True) == SAID_OF_TINY
    assert (spec.length, spec.width, spec.height, spec.shard_size, spec.seed) == (4, 128, 64, 5_000, 1)


@pytest.mark.parametrize("name", ["cnn", "crnn"])
def test_a_model_that_says_only_what_differs_is_the_one_that_says_all(name: str, tmp_path: Path) -> None:
    """What params.yaml had when it said everything of every model."""
    YAML().dump({"models": SAID_OF_SMALL}, tmp_path / "params.yaml")
    short, complete = (
        load_model_params(name, tmp_path / "params.yaml"),
        load_model_params(name, ROOT / "tests/complete_models.yaml"),
    )
    assert short == complete == load_model_params(name, ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("said", "changed"),
    [
        ({"fast": {"epochs": 7}}, ("fast", "epochs", 7)),
        ({"lab": {"batch_size": 7}}, ("lab", "batch_size", 7)),
        ({"fast": None}, ("fast", "epochs", 14)),
    ],
    ids=["a preset", "the other preset", "a key without a value"],
)
def test_a_recipe_takes_what_it_does_not_say_from_its_family(said: dict[str, object], changed: tuple[str, str, object]) -> None:
    model = {"family": "crnn", "dataset": "alnum"}
    preset, key, value = changed
    told, default = CrnnParams.model_validate(model | said), CrnnParams.model_validate(model)
    assert getattr(getattr(told, preset), key) == value
    assert told == default.model_copy(update={preset: getattr(default, preset).model_copy(update={key: value})})


@pytest.mark.parametrize("value", [3, 0, False, "", []], ids=repr)
def test_a_recipe_that_is_no_mapping_is_refused(tmp_path: Path, value: object) -> None:
    YAML().dump({"models": {"cnn": {"family": "cnn", "dataset": "digits", "fast": value}}}, tmp_path / "params.yaml")
    with pytest.raises(ParamsError, match=r"models\.cnn\.fast is .*; expected"):
        load_model_params("cnn", tmp_path / "params.yaml")


def test_a_wrong_key_deep_in_a_model_is_compared_with_its_neighbours(tmp_path: Path) -> None:
    params = read_params(ROOT / "params.yaml")
    params["models"]["cnn"]["fast"]["epocs"] = params["models"]["cnn"]["fast"].pop("epochs")
    YAML().dump(params, tmp_path / "params.yaml")
    with pytest.raises(ParamsError, match=r"models\.cnn\.fast\.epocs is not a known key; did you mean `epochs`"):
        load_section(CnnParams, "models.cnn", tmp_path / "params.yaml")


@pytest.mark.parametrize(("written", "value"), [("1e-3", 0.001), ("2E-1", 0.2), (".5", 0.5), ("0.25", 0.25)])
def test_numbers_are_read_as_dvc_reads_them(write: Callable[[str], Path], written: str, value: float) -> None:
    from dvc.utils.serialize import load_yaml  # noqa: PLC0415 - dvc is slow to import

    path = write(GOOD.replace("0.2", written))
    assert load_section(SplitRule, "split", path).test_size == load_yaml(str(path))["split"]["test_size"] == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("a: 1\na: 2\n", 'is not valid YAML: line 2: found duplicate key "a"', id="duplicate key"),
        pytest.param("a: [1\nb: 2\n", "is not valid YAML: line 2: expected ',' or ']'", id="open bracket"),
        pytest.param("a:\n\tb: 1\n", "is not valid YAML: line 2: found character '\\t'", id="tab"),
        pytest.param("a: 1\n---\nb: 1\n", "is not valid YAML: line 2", id="two documents"),
        pytest.param("a: !!python/object:os.system x\n", "is not valid YAML: line 1: could not determine", id="Python object"),
        pytest.param("a: !!set {x, y}\n", "is not valid YAML: line 1: could not determine", id="set, which has no order"),
        pytest.param("a: \x07\n", "is not valid YAML", id="control character"),
        pytest.param("a: 2024-13-01\n", "is not valid YAML: month must be in 1..12", id="no date"),
        pytest.param(f"a: {'9' * 5_000}\n", "is not valid YAML: Exceeds the limit", id="endless number"),
        pytest.param("[" * 5_000, "is not valid YAML: maximum recursion depth", id="endless brackets"),
        pytest.param("", "holds nothing; expected sections such as `datasets:`", id="empty"),
        pytest.param("- 1\n", "holds a list; expected sections", id="list"),
    ],
)
def test_a_file_that_holds_no_sections_is_refused(write: Callable[[str], Path], content: str, message: str) -> None:
    path = write(content)
    with pytest.raises(ParamsError) as error:
        read_params(path)
    assert str(error.value).startswith(f"{path} ")
    assert message in str(error.value)


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    for encoding in ("latin-1", "utf-16"):
        (tmp_path / "params.yaml").write_bytes("é: 1".encode(encoding))
        with pytest.raises(ParamsError, match=r"is not text in UTF-8: save it as UTF-8 \('utf-8' codec"):
            read_params(tmp_path / "params.yaml")


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    os.mkfifo(path)
    with pytest.raises(UserError, match="is not a regular file"):
        read_params(path)
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(ParamsError, match="is a symbolic link that leads nowhere"):
        read_params(path)


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"nowhere\.yaml is missing: run from the project's top folder"):
        read_params(tmp_path / "nowhere.yaml")


def error_lines(stderr: str) -> list[str]:
    assert "Traceback" not in stderr
    return [line for line in stderr.splitlines() if line.startswith("error:")]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("count: 60", "cuont: 60", "params.yaml: datasets.tiny.cuont is not a known key", id="unknown key"),
        pytest.param("count: 60", "count: [60", "params.yaml is not valid YAML: line 8", id="broken YAML"),
    ],
)
def test_generate_with_a_bad_file_says_so_and_writes_nothing(project: Project, old: str, new: str, message: str) -> None:
    (project.root / "params.yaml").write_text(GOOD.replace(old, new))
    done = project.run("generate", "tiny")
    (line,) = error_lines(done.stderr)
    assert message in line
    assert (done.returncode, done.stdout) == (2, "")
    assert project.list_files() == {"params.yaml"}


def test_generate_refuses_what_the_disk_cannot_hold_before_it_draws(project: Project) -> None:
    huge = (
        GOOD.replace("count: 60", "count: 1000000000").replace("width: 48", "width: 1024").replace("height: 32", "height: 1024")
    )
    (project.root / "params.yaml").write_text(huge)
    done = project.run("generate", "tiny")
    (line,) = error_lines(done.stderr)
    assert "GB and the disk has" in line
    assert line.endswith("GB free: free some space, or lower `count` in params.yaml if it is drawn")
    assert done.returncode == 2
    assert not [path for path in project.root.rglob("*") if path.is_file() and path.name not in {"params.yaml", "tiny.lock"}]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"width": 120, "height": 100, "length": 4}, id="digits"),
        pytest.param({"width": 200, "height": 100, "dots": 0, "curves": 0}, id="plain"),
        pytest.param({"width": 16, "height": 16}, id="smallest"),
        pytest.param({"width": 1024, "height": 1024, "dots": 0, "curves": 0, "length": 1, "font_sizes": (8,)}, id="empty"),
        pytest.param({"width": 120, "height": 100, "font_sizes": (500,), "length": 1}, id="large characters"),
    ],
)
def test_the_size_is_estimated_low_but_not_by_far(
    generate: Callable[..., CaptchaDataset], tiny_spec: DatasetSpec, changes: dict[str, object]
) -> None:
    spec = DatasetSpec(**tiny_spec.model_dump() | {"count": 20, "shard_size": 20} | changes)
    size_bytes = sum(shard.size_bytes for shard in generate(spec).manifest.shards)
    assert 0.2 * size_bytes < spec.estimated_bytes <= size_bytes


@pytest.mark.parametrize("num_workers", [0, -3, 10**10])
def test_generate_needs_a_worker(num_workers: int) -> None:
    message = f"--workers is {num_workers}; expected 1 to 1,000, or leave it out for one per core"
    with pytest.raises(UserError, match=re.escape(message)), local_processes(num_workers):
        pass


def test_generate_without_params_says_so(make_project: Callable[[str], Project]) -> None:
    empty = make_project("empty")
    done = empty.run("generate", "tiny")
    assert error_lines(done.stderr) == ["error: params.yaml is missing: run from the project's top folder"]
    assert done.returncode == 2
    assert empty.list_files() == set()


@pytest.mark.parametrize("name", ["tinny", "tiny.count", "../tiny"])
def test_generate_refuses_a_name_that_is_no_dataset(project: Project, name: str) -> None:
    done = project.run("generate", name)
    assert len(error_lines(done.stderr)) == 1
    assert done.returncode == 2
    assert project.list_files() == {"params.yaml"}


def test_check_with_a_bad_file_says_so_and_writes_nothing(project: Project) -> None:
    (project.root / "params.yaml").write_text(GOOD)
    done = project.run("check")
    (line,) = error_lines(done.stderr)
    assert line == "error: params.yaml has the sections datasets, drawing, split; expected datasets, drawing, models, split"
    assert (done.returncode, done.stdout) == (2, "")
    assert project.list_files() == {"params.yaml"}


@pytest.mark.parametrize(
    ("written", "wrong", "message"),
    [
        ("test_size: 0.2", "test_size: 1.5", "split.test_size is 1.5; expected less than 1"),
        (
            "length: 4 ",
            "length: {min: 3, max: 4} ",
            "models.cnn: a cnn has one output per position and reads texts of one length",
        ),
    ],
)
def test_a_plain_value_is_refused_before_anything_large_is_imported(
    project: Project, written: str, wrong: str, message: str
) -> None:
    (project.root / "params.yaml").write_text((ROOT / "params.yaml").read_text().replace(written, wrong))
    code = """
import sys
from stages import check
try:
    check.main()
finally:
    print(sorted({"captcha", "keras", "numba", "sklearn", "tensorflow"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=project.root, capture_output=True, text=True, check=False)
    assert message in done.stderr
    assert done.stdout == "[]\n"


THREE_TEXTS = {"datasets.alnum.length": 1, "datasets.alnum.alphabet": "abc", "models.crnn.fast.emphasis.characters": ""}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a copy of the project's own params.yaml and nothing else."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_check_accepts_the_params_of_the_project(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Of a dataset that is no longer named.
    (workplace / "data/tools/generate").mkdir(parents=True)
    (workplace / "data/tools/generate/old.json").write_text("{}")
    check.main()
    output, errors = capsys.readouterr()
    assert errors == ""
    assert "digits: 80,000 train and 20,000 test samples, by shard" in output
    assert "cnn: cnn of preset fast for digits\n" in output
    assert {path.name for path in workplace.rglob("*.*")} == {
        *(
            "params.yaml",
            "digits.json",
            "alnum.json",
            "split.json",
            "report.json",
            "describe.json",
            "cnn.json",
            "crnn.json",
            "evaluate.json",
        )
    }


def test_check_accepts_datasets_without_a_model(workplace: Path) -> None:
    YAML().dump(read_params(workplace / "params.yaml") | {"models": {}}, workplace / "params.yaml")
    check.main()
    assert (workplace / "data/tools/evaluate.json").is_file()
    assert not (workplace / "data/tools/train").exists()


def test_check_warns_of_what_is_hard_to_read_and_passes(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (workplace / "params.yaml").read_text(encoding="utf-8")
    (workplace / "params.yaml").write_text(text.replace("seed: 2024", "seed: 2024\n    height: 40"), encoding="utf-8")
    check.main()
    captured = capsys.readouterr()
    assert captured.err == (
        "warning: params.yaml: datasets.alnum: at font size 56 characters are 61 pixels high, and the pictures 40: "
        "raise `height` to 61, or take smaller `font_sizes`\n"
    )


def test_check_says_the_share_that_whole_shards_give(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (workplace / "params.yaml").read_text(encoding="utf-8").replace("count: 100000", "count: 120000")
    (workplace / "params.yaml").write_text(text, encoding="utf-8")
    check.main()
    said = "digits: 95,000 train and 25,000 test samples, by shard, 20.8% test and not 20.0%, as shards are not divided\n"
    assert said in capsys.readouterr().out


def test_check_says_about_how_many_a_hash_chooses(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (workplace / "params.yaml").read_text(encoding="utf-8").replace("by: shard", "by: sample_hash")
    (workplace / "params.yaml").write_text(text, encoding="utf-8")
    check.main()
    assert "digits: about 80,000 train and 20,000 test samples, by sample_hash\n" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["sample", "label"])
def test_check_says_that_a_split_of_samples_does_not_outlast_growth(
    workplace: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    text = (workplace / "params.yaml").read_text(encoding="utf-8")
    (workplace / "params.yaml").write_text(text.replace("by: shard", f"by: {way}"), encoding="utf-8")
    check.main()
    said = f"digits: 80,000 train and 20,000 test samples, by {way}; they change sides when `count` does\n"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"split.test_size": 1.5}, r"params.yaml: split.test_size is 1.5; expected less than 1", id="test_size"),
        pytest.param(
            {"datasets.digits.shard_size": 100_000},
            r"params.yaml: datasets.digits: a test share of 0.2 is . of 1 shards, and leaves one side empty: lower",
            id="one shard",
        ),
        pytest.param(
            THREE_TEXTS | {"split.by": "label"},
            r"datasets.alnum: a test share of 0.2 is 20000 of 100000 samples, while each of 3 texts has more, .*: raise `length`",
            id="no text is few enough",
        ),
        pytest.param(
            THREE_TEXTS | {"split.by": "label_hash", "split.seed": 1},
            r"datasets.alnum: a test share of 0.2 is 0% of 3 texts, and leaves one side empty: raise `length`, or",
            id="no text is test",
        ),
        pytest.param(
            {"split.by": "sample", "datasets.alnum.count": 2},
            r"datasets.alnum: a test share of 0.2 is 0 of 2 samples, and leaves one side empty: raise `count`",
            id="no test sample",
        ),
        pytest.param(
            {f"datasets.digits.{key}": value for key, value in {"count": 10**9, "width": 1024, "height": 1024}.items()},
            r"data needs about 7,2\d{2}\.\d GB and the disk has .* GB free: free some space, or lower `count`",
            id="larger than the disk",
        ),
        pytest.param(
            {"models.cnn.dataset": "digit"}, r"models.cnn.dataset is 'digit'; expected one of digits, alnum", id="unknown dataset"
        ),
        pytest.param(
            {"datasets.digits.fonts": ["no.ttf"]},
            r"datasets.digits: fonts names 'no.ttf', which is not in /.*/fonts; font files there: none",
            id="no such font",
        ),
        pytest.param(
            {"datasets.digits.length": {"min": 3, "max": 4}},
            r"models.cnn: a cnn has one output per position and reads texts of one length; these have 3 to 4 characters: use",
            id="cnn with texts of differing lengths",
        ),
        pytest.param(
            {"datasets.digits.ink": {"min": 0, "max": 0}},
            r"datasets.digits: the text cannot be seen in 100% of the pictures, .*: `ink: {min: 10, max: 200}` can be seen on",
            id="black ink",
        ),
        pytest.param(
            {"models.crnn.dataset": "digits"},
            r"models.crnn: fast.emphasis.characters is '0O'; the alphabet '0123456789' does not hold 'O': take characters of it",
            id="characters of another alphabet",
        ),
        pytest.param({"drawing.executor": "slurm"}, r"drawing.executor is 'slurm'; expected 'local' or 'dask'", id="executor"),
        pytest.param(
            {"drawing.scheduler": "host:1"}, r"drawing.scheduler is 'host:1'; expected an address such as tcp:", id="scheduler"
        ),
        *(
            pytest.param({"drawing.scheduler": address}, r"; expected an address such as tcp://127.0.0.1:8786$", id=address)
            for address in ("tcp://127.0.0.1", "http://host:8787", "tcp://host:abc", "tcp://host:1?key=1", "inproc://x")
        ),
        pytest.param(
            {"drawing.scheduler": "tcp://me:s3cret@host:1"},
            r"^params.yaml: drawing.scheduler holds a login, [^@]*$",
            id="a login",
        ),
        pytest.param({"models.cnn.family": "rnn"}, r"models.cnn.family is 'rnn'; expected one of cnn, crnn", id="unknown family"),
        pytest.param(
            {"model": {}},
            r"sections datasets, drawing, split, models, model; expected datasets, drawing, models, split$",
            id="section",
        ),
        pytest.param(
            {"models.cnn.validation_size": 0.9999999},
            r"models.cnn.validation_size is 0.9999999, which leaves nothing of 80,000 train samples .*: lower it, or",
            id="nothing to train on",
        ),
        pytest.param(
            {"datasets.digits": None}, r"datasets.digits is empty; expected at least the key alphabet with a value$", id="empty"
        ),
        pytest.param({"datasets": None}, r"params.yaml: datasets is empty; expected at least one name", id="no dataset"),
        pytest.param(
            {"models": None}, r"params.yaml: models is empty; expected names with settings, or {} for none", id="no model"
        ),
        pytest.param(
            {"datasets.A b": {}}, r"the name 'A b' is not allowed; expected text of a-z, 0-9, - and _", id="strange name"
        ),
        *(
            pytest.param({f"datasets.{name}": {}}, f"the name {name!r} is not allowed; .* at both ends", id=f"name {name[:8]}")
            for name in ("digits_", "-digits", "ünder", "x" * 65)
        ),
        pytest.param({"datasets.generated": {}}, r"the name 'generated' is taken by data/generated", id="taken name"),
        pytest.param({"datasets.con": {}}, r"the name 'con' is that of a device on Windows, .* choose another", id="device"),
        pytest.param({"datasets.cnn": {}}, r"a dataset and a model are both called 'cnn': rename one", id="same name twice"),
    ],
)
def test_check_refuses_what_cannot_work_and_writes_nothing(workplace: Path, changes: dict[str, object], message: str) -> None:
    params = read_params(workplace / "params.yaml")
    for key, value in changes.items():
        *sections, name = key.split(".")
        section = params
        for part in sections:
            section = section[part]
        section[name] = value
    YAML().dump(params, workplace / "params.yaml")
    with pytest.raises(UserError, match=message):
        check.main()
    assert [path.name for path in workplace.rglob("*")] == ["params.yaml"]


@given(st.from_regex(NAME, fullmatch=True))
def test_every_name_that_check_takes_is_one_that_tags_of_versions_can_have(name: str) -> None:
    assert name_re.fullmatch(name)


@pytest.mark.parametrize(
    ("family", "preset", "width", "height", "needed"),
    [
        ("cnn", "lab", 34, 34, None),
        ("cnn", "lab", 33, 34, "34x34"),
        ("cnn", "lab", 34, 33, "34x34"),
        ("cnn", "fast", 16, 16, None),
        ("crnn", "lab", 24, 32, None),
        ("crnn", "lab", 23, 32, "24x32"),
        ("crnn", "lab", 24, 31, "24x32"),
        ("crnn", "fast", 17, 16, None),
        ("crnn", "fast", 16, 16, "17x16"),
    ],
)
def test_pictures_are_too_small_for_check_just_where_no_network_can_be_built(
    family: str, preset: str, width: int, height: int, needed: str | None
) -> None:
    # TensorFlow takes seconds to start.
    from captcha_registry.recognition.training import build_network  # noqa: PLC0415

    model = (CnnParams if family == "cnn" else CrnnParams).model_validate({"family": family, "preset": preset, "dataset": "tiny"})
    spec = DatasetSpec(alphabet="01", length=2, width=width, height=height)
    if needed is None:
        check.require_large_pictures("reader", model, spec)
        build_network(model, spec)
    else:
        with pytest.raises(ParamsError, match=f"a {family} of preset {preset} needs pictures of {needed} for texts of 2"):
            check.require_large_pictures("reader", model, spec)
        with pytest.raises(UserError):
            build_network(model, spec)


def test_check_refuses_a_validation_part_just_where_a_training_does(tiny_dataset: CaptchaDataset) -> None:
    # TensorFlow takes seconds to start.
    from captcha_registry.recognition.batches import divide_train_split  # noqa: PLC0415

    train, refused = tiny_dataset.split("train"), set()
    for num_train, share in itertools.product((1, 2, 3, len(train)), (0.01, 0.5, 0.74, 0.76, 0.83, 0.84, 0.98, 0.99)):
        model = CnnParams.model_validate({"family": "cnn", "dataset": "tiny", "validation_size": share})
        called = (
            partial(divide_train_split, train[:num_train], model),
            partial(check.require_training_samples, "a", model, num_train),
        )
        in_training, in_check = map(is_refused, called)
        assert in_training == in_check, (num_train, share)
        refused.add(in_check)
    assert refused == {True, False}


def is_refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except UserError:
        return True
    return False


def test_check_warns_of_an_emphasis_on_pictures_that_are_not_drawn(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (workplace / "params.yaml").read_text(encoding="utf-8")
    text = text.replace('emphasis: {characters: "0O"', 'fresh: 0.0\n      emphasis: {characters: "0O"')
    (workplace / "params.yaml").write_text(text, encoding="utf-8")
    check.main()
    assert "warning: params.yaml: models.crnn.fast.emphasis has no effect, as `fresh` is 0.0" in capsys.readouterr().err


def test_check_suggests_the_section_that_somebody_meant(workplace: Path) -> None:
    text = (workplace / "params.yaml").read_text(encoding="utf-8").replace("drawing:", "drawings:")
    (workplace / "params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"expected datasets, drawing, models, split: did you mean `drawing`\?"):
        check.main()


def test_values_are_checked_alone_before_dvc_makes_stages_of_them(project: Project) -> None:
    assert project.run("check", "--values").returncode == 0
    assert project.list_files() == {"params.yaml"}
    with (project.root / "params.yaml").open("a") as params:
        params.write("more: 1\n")
    done = project.run("check", "--values")
    assert (done.returncode, "params.yaml has the sections" in done.stderr) == (2, True)
    assert "stages.check --values\n\t$(BIN)/dvc repro\n" in (ROOT / "Makefile").read_text()


def test_check_refuses_a_name_that_yaml_reads_as_a_number(workplace: Path) -> None:
    text = (workplace / "params.yaml").read_text(encoding="utf-8")
    (workplace / "params.yaml").write_text(text.replace("  digits:\n", "  2023:\n"), encoding="utf-8")
    with pytest.raises(UserError, match=r"the name 2023 is not allowed; expected text of a-z"):
        check.main()
