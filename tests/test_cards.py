"""Cards say what is so and are read by those they are for: people, Hugging Face, Croissant readers."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import mlcroissant
import pytest
from huggingface_hub import DatasetCard
from huggingface_hub import ModelCard as HubModelCard

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.index import SCHEMA
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.describing.card import COLUMNS, FACTS, write_dataset_card
from captcha_registry.describing.croissant import DRAWN_SINCE, write_croissant
from captcha_registry.describing.model_card import write_model_card
from captcha_registry.describing.statistics import summarize_dataset
from captcha_registry.generation.drawing import DRAWING_VERSION
from captcha_registry.recognition.card import ModelCard
from stages import generate as generate_stage

METRICS = {
    "exact_match": 0.9958,
    "exact_match_low": 0.994804,
    "exact_match_high": 0.996606,
    "exact_match_0_is_o": 0.997,
    "character_accuracy": 0.998938,
    "cer": 0.001062,
    "expected_calibration_error": 0.0123,
    "test_samples": 20000,
    "parameters": 886928,
}


@pytest.fixture
def described(dataset_copy: Path, tiny_dataset: CaptchaDataset) -> Path:
    """A dataset with its descriptions."""
    metrics = summarize_dataset(tiny_dataset)
    (dataset_copy / "README.md").write_text(write_dataset_card(tiny_dataset.manifest, metrics))
    (dataset_copy / "croissant.json").write_text(write_croissant(tiny_dataset.manifest))
    return dataset_copy


def test_hugging_face_reads_what_a_dataset_is(described: Path) -> None:
    data = DatasetCard.load(described / "README.md").data.to_dict()
    assert data["license"] == "apache-2.0"
    assert data["task_categories"] == ["image-to-text"]
    assert data["size_categories"] == ["n<1K"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_hugging_face_reads_the_rows_of_one_split(
    described: Path, tiny_dataset: CaptchaDataset, tmp_path: Path, split: str
) -> None:
    rows = datasets.load_dataset(str(described), split, cache_dir=str(tmp_path / "cache"))
    assert {*rows} == {split}
    assert rows[split]["label"][:] == tiny_dataset.split(split).index["label"].to_pylist()


def test_hugging_face_reads_no_test_sample_unless_it_is_told_to(described: Path, tmp_path: Path) -> None:
    rows = datasets.load_dataset(str(described), cache_dir=str(tmp_path / "cache"))
    assert {*rows} == {"train"}
    assert {*rows["train"]["split"]} == {"train"}


def test_hugging_face_reads_the_rows_of_a_dataset_that_was_not_split(described_elsewhere: Path, tmp_path: Path) -> None:
    rows = datasets.load_dataset(str(described_elsewhere), cache_dir=str(tmp_path / "cache"))
    assert len(rows["train"]) == 60


def test_pictures_in_other_fonts_are_under_their_licence(tiny_dataset: CaptchaDataset) -> None:
    spec = tiny_dataset.manifest.spec.model_copy(update={"fonts": ("Own.ttf",)})
    card = write_dataset_card(tiny_dataset.manifest.model_copy(update={"spec": spec}), {})
    assert DatasetCard(card).data.license == "other"
    assert "Own.ttf" in card
    assert "Apache" not in card


def test_letters_whose_cases_look_alike_are_a_limit(tiny_dataset: CaptchaDataset) -> None:
    spec = tiny_dataset.manifest.spec
    alphabets = (spec.alphabet, "abcABC", "abcABxz")
    cards = [
        write_dataset_card(tiny_dataset.manifest.model_copy(update={"spec": spec.model_copy(update={"alphabet": alphabet})}), {})
        for alphabet in alphabets
    ]
    assert ["look almost the same: `c` and `C`.\n" in card for card in cards] == [False, True, False]


@pytest.mark.parametrize("name", ["no", "null", "2026", "07", "12_3", "1e3", "2026-11-27", "digits", "y", "nobody", "on-paper"])
def test_hugging_face_reads_every_name_as_a_text(tiny_dataset: CaptchaDataset, trained: ModelCard, name: str) -> None:
    card = write_dataset_card(tiny_dataset.manifest.model_copy(update={"name": name}), {})
    assert DatasetCard(card).data.pretty_name == name
    data = HubModelCard(write_model_card(name, trained.model_copy(update={"dataset": name}), METRICS)).data
    assert (data.model_name, {result.dataset_name for result in data.eval_results}) == (name, {name})


def test_every_column_and_fact_is_explained(tiny_dataset: CaptchaDataset) -> None:
    assert list(COLUMNS) == SCHEMA.names
    card = write_dataset_card(tiny_dataset.manifest, summarize_dataset(tiny_dataset))
    for meaning in (*COLUMNS.values(), *FACTS.values()):
        assert meaning in card


@pytest.fixture
def described_elsewhere(generated_dataset: CaptchaDataset, tmp_path: Path) -> Path:
    """A dataset as it lies at a URL: not split, with the descriptions that need no look into it."""
    root = Path(shutil.copytree(generated_dataset.root, tmp_path / "there"))
    for name, text in generate_stage.describe(generated_dataset.manifest).items():
        (root / name).write_text(text)
    return root


# One process for all, as TensorFlow takes seconds to start.
RUN_EXAMPLES = """
import json, os, sys
for folder, code in json.load(sys.stdin):
    os.chdir(folder)
    exec(code, {})
"""


def test_the_examples_of_a_dataset_card_run(described: Path, described_elsewhere: Path) -> None:
    codes = []
    for folder in (described, described_elsewhere):
        examples = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
        assert len(examples) == 3
        # A terminal shows them without a break.
        assert max(len(line) for example in examples for line in example.splitlines()) < 79
        last = ["assert rows[0]['label'] == label", "print(next(iter(samples))['label'].numpy(), label)"]
        codes.append((str(folder), "\n".join([*examples, *last])))
    command, given = [sys.executable, "-c", RUN_EXAMPLES], json.dumps(codes)
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pairs = [line.split() for line in done.stdout.splitlines()]
    assert len(pairs) == 2
    assert all(first == f"b'{second}'" for first, second in pairs)


# mlcroissant 1.1 uses rdflib and pandas in ways that these call old.
@pytest.mark.filterwarnings("ignore:The inplace keyword")
@pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Dataset.default_context is deprecated:DeprecationWarning")
def test_a_croissant_reader_finds_nothing_wrong_and_reads_the_index(described: Path, tiny_dataset: CaptchaDataset) -> None:
    dataset = mlcroissant.Dataset(described / "croissant.json")
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    assert not issues.warnings
    records = [{key.split("/")[1]: value for key, value in record.items()} for record in dataset.records("samples")]
    expected = [
        {name: value.encode() if isinstance(value, str) else value for name, value in row.items()}
        for row in tiny_dataset.index.to_pylist()
    ]
    assert records == expected
    assert [record["splits/name"] for record in dataset.records("splits")] == ["test", "train"]


def test_a_dataset_that_is_not_split_says_so(described_elsewhere: Path) -> None:
    card = (described_elsewhere / "README.md").read_text()
    assert "Not split." in card
    assert "train/" not in card
    assert DatasetCard(card).data.pretty_name == "tiny"
    croissant = json.loads((described_elsewhere / "croissant.json").read_text())
    assert {file["contentUrl"] for file in croissant["distribution"]} == {
        "index.parquet",
        *(f"{n:05d}.tfrecord" for n in range(10)),
    }


def test_every_drawing_version_has_its_day() -> None:
    assert DRAWING_VERSION in DRAWN_SINCE


def test_croissant_names_every_file_with_its_hash(tiny_dataset: CaptchaDataset) -> None:
    files = json.loads(write_croissant(tiny_dataset.manifest))["distribution"]
    manifest = tiny_dataset.manifest
    assert {file["contentUrl"]: file["sha256"] for file in files} == {
        e.path: e.sha256 for e in (*manifest.shards, manifest.index)
    }


@pytest.fixture
def trained(tiny_spec: DatasetSpec) -> ModelCard:
    return ModelCard(
        family="crnn",
        preset="fast",
        dataset="tiny",
        spec=tiny_spec,
        dataset_id="d" * 64,
        num_parameters=886928,
        model_sha256="e" * 64,
        fresh=0.75,
        precision="mixed_bfloat16",
        num_threads=2,
    )


@pytest.fixture
def model_card(trained: ModelCard) -> str:
    return write_model_card("reader", trained, METRICS)


def test_hugging_face_reads_what_a_model_reached_and_on_what(model_card: str) -> None:
    (result, other, errors) = HubModelCard(model_card).data.eval_results
    assert (result.dataset_name, result.dataset_revision, result.dataset_split) == ("tiny", "d" * 64, "test")
    assert (result.metric_type, result.metric_value) == ("exact_match", 0.9958)
    assert (other.metric_type, other.metric_value) == ("character_accuracy", 0.998938)
    assert (errors.metric_type, errors.metric_value) == ("cer", 0.001062)


def test_a_model_card_says_the_interval_and_the_dataset(model_card: str) -> None:
    assert "0.9948 to 0.9966" in model_card
    assert "| exact match 0 is o | 0.9970 | exact match with 0 and O taken for one character |" in model_card
    assert "| expected calibration error | 0.0123 | by how much" in model_card
    assert "with 0 or o" not in model_card
    assert f"the dataset `tiny` with the id `{'d' * 64}`" in model_card


def test_a_model_card_says_what_decides_the_weights_besides_params_if_model_json_does(
    trained: ModelCard, model_card: str
) -> None:
    assert "Trained in `mixed_bfloat16`, with 2 threads" in model_card
    assert "for 75% of a batch\npictures that were drawn for the training and are in no dataset" in model_card
    older = ModelCard.model_validate_json(trained.model_dump_json(exclude={"fresh", "precision", "num_threads"}))
    assert "Trained in" not in write_model_card("reader", older, METRICS)
    assert "drawn for the training" not in write_model_card("reader", older, METRICS)
