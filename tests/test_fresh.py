"""Pictures that are drawn while a network trains: in no dataset, the same however they are drawn, the same after a kill."""

import hashlib
import multiprocessing
import pickle
import select
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_recognition import read_all, small_params, uncompiled  # noqa: F401 - a fixture

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.generation import drawing, fresh
from captcha_registry.generation.drawing import Drawer, sample_stream
from captcha_registry.generation.executors import local_processes
from captcha_registry.generation.fresh import FreshPictures, draw_chunk, find_key
from captcha_registry.recognition import training
from captcha_registry.recognition.batches import TrainingBatches, load_training_batches
from captcha_registry.recognition.recipe import Emphasis, ModelParams
from captcha_registry.recognition.training import train_model
from stages.check import describe_training

SMALL = DatasetSpec(alphabet="0123456789AO", length=3, width=40, height=24, count=1, shard_size=1, seed=7)
SEEDS, NUMBERS = st.integers(0, 2**63 - 1), st.integers(0, 10**18)


@pytest.fixture(autouse=True)
def _one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process draws for a training, as a start takes longer than all that is drawn here."""
    monkeypatch.setattr(fresh, "count_workers", lambda: 1)


@given(SEEDS, NUMBERS, SEEDS, NUMBERS)
def test_no_sample_of_any_dataset_has_the_stream_of_a_fresh_picture(seed: int, sample_id: int, other: int, number: int) -> None:
    keys: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing.random, "Random", keys.append)
        sample_stream(seed, sample_id)
    assert keys[0] < 2**128 <= find_key(other, seed, number)


def test_fresh_pictures_differ_between_trainings_and_from_those_of_the_dataset() -> None:
    drawer, num_pictures = Drawer(SMALL), 1500
    of_dataset = {drawer.draw(sample_id).pixels.tobytes() for sample_id in range(num_pictures)}
    of_trainings = [
        {image.tobytes() for image in draw_chunk(SMALL, (), seed, range(num_pictures), SMALL.alphabet)[0]} for seed in (1, 2)
    ]
    assert len(set.union(of_dataset, *of_trainings)) == 3 * num_pictures


def test_a_character_that_stands_twice_is_drawn_twice_as_often() -> None:
    characters = Emphasis(characters="0O", weight=5, until=1.0).repeat_in(SMALL.alphabet)
    _, texts = draw_chunk(SMALL, (), 1, range(1500), characters)
    share = sum(text.count("0") + text.count("O") for text in texts) / (3 * 1500)
    assert share == pytest.approx(2 * 5 / (2 * 5 + 10), abs=0.03)
    assert Drawer(SMALL).draw(3).label == Drawer(SMALL).draw_from(sample_stream(7, 3), SMALL.alphabet).label


def test_batches_are_the_same_whoever_draws_them_in_chunks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    batches = [(range(start, start + 10), SMALL.alphabet) for start in range(0, 60, 10)]
    for num_chunk_pictures, executor in ((100, ThreadPoolExecutor(1)), (3, local_processes(2))):
        monkeypatch.setattr(fresh, "CHUNK_BYTES", num_chunk_pictures * 40 * 24 * 3)
        with executor as opened:
            drawn.append(list(FreshPictures(Drawer(SMALL), 1, opened, num_ahead=4).draw_batches(batches)))
    for (images, texts), (others, other_texts) in zip(*drawn, strict=True):
        assert np.array_equal(images, others)
        assert texts == other_texts


def test_a_worker_returns_a_path_and_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pictures that a kill cuts off in the pipe would be waited for for ever.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    drawn = fresh.draw_file(SMALL, (), 1, range(200), SMALL.alphabet)
    assert len(pickle.dumps(drawn)) < select.PIPE_BUF
    images, texts = draw_chunk(SMALL, (), 1, range(200), SMALL.alphabet)
    taken, taken_texts = fresh._take(drawn)  # noqa: SLF001 - the other end
    assert np.array_equal(taken, images)
    assert taken_texts == texts
    assert [*tmp_path.iterdir()] == []


def test_no_more_is_drawn_ahead_than_memory_was_given_to() -> None:
    submitted: list[range] = []

    class Counting(ThreadPoolExecutor):
        def submit(self, function, *arguments):  # type: ignore[no-untyped-def,override] # noqa: ANN001, ANN002, ANN202
            submitted.append(arguments[-2])
            return super().submit(function, *arguments)

    with Counting(1) as executor:
        endless = ((range(n, n + 1), SMALL.alphabet) for n in range(10**9))
        drawn = FreshPictures(Drawer(SMALL), 1, executor, num_ahead=4).draw_batches(endless)
        for num_read in range(1, 4):
            next(drawn)
            assert len(submitted) == num_read + 4
        drawn.close()


def fresh_params(share: float, **changes: object) -> ModelParams:
    """Params of which an epoch of the tiny dataset has four steps of eight samples; the first two of four epochs show zeros."""
    emphasis = Emphasis(characters="0", weight=100, until=0.5)
    recipe = {"batch_size": 8, "epochs": 4, "emphasis": emphasis, "fresh": share} | changes
    return small_params("cnn", validation_size=0.25, **recipe)


@contextmanager
def load(dataset: CaptchaDataset, share: float, folder: Path) -> Iterator[TrainingBatches]:
    with load_training_batches(dataset, fresh_params(share), first_class=0, cache_dir=folder) as loaded:
        yield loaded


def test_steps_see_what_epoch_and_phase_say_and_no_sample_of_the_dataset(tiny_dataset: CaptchaDataset, tmp_path: Path) -> None:
    with load(tiny_dataset, 1.0, tmp_path) as loaded:
        assert (loaded.num_steps, loaded.num_train) == (4, 36)
        images, classes = read_all(loaded.train_from(0, 0).take(20))
        resumed, of_resumed = read_all(loaded.train_from(1, 1).take(12))
        next_phase, of_next_phase = read_all(loaded.train_from(3, 1).take(8))
        same_phase, _ = read_all(loaded.train_from(4, 2).take(4))
    assert len({image.tobytes() for image in images}) == 20 * 8
    hashes = set(tiny_dataset.index["pixel_sha256"].to_pylist())
    assert not hashes & {hashlib.sha256(image.data).digest() for image in images}
    assert np.array_equal(resumed, images[32:128])
    assert np.array_equal(of_resumed, classes[32:128])
    shares = [float((part == 0).mean()) for part in (classes[:64], classes[64:], of_next_phase[:32], of_next_phase[32:])]
    assert np.array_equal(next_phase[32:], same_phase)
    assert [share > 0.7 for share in shares] == [True, False, True, False]


def test_a_batch_holds_the_share_that_is_drawn_and_train_samples_for_the_rest(
    tiny_dataset: CaptchaDataset, tmp_path: Path
) -> None:
    hashes = set(tiny_dataset.split("train")[12:].index["pixel_sha256"].to_pylist())
    with load(tiny_dataset, 0.25, tmp_path) as loaded:
        batches = list(loaded.train_from(0, 0).take(8).as_numpy_iterator())
        first_read, *_ = read_all(loaded.train_from(1, 1).take(1))
    read = [[hashlib.sha256(image.data).digest() in hashes for image in images] for images, _ in batches]
    assert [sum(batch) for batch in read] == [6] * 8
    # Two devices would take a half each.
    assert 0 < sum(read[0][:4]) < 4 or 0 < sum(read[0][4:]) < 4
    assert np.array_equal(batches[4][0], first_read)


def test_a_worker_that_is_killed_ends_the_training_with_what_to_do(tiny_dataset: CaptchaDataset, tmp_path: Path) -> None:
    def read_and_kill() -> None:
        with load(tiny_dataset, 1.0, tmp_path) as loaded:
            for number, _ in enumerate(loaded.train_from(0, 0)):
                if number == 1:
                    for worker in multiprocessing.active_children():
                        worker.kill()

    with pytest.raises(UserError, match="a worker process was killed, most often for lack of memory: run the same command again"):
        read_and_kill()
    assert multiprocessing.active_children() == []


def test_a_training_without_the_drawing_packages_names_what_is_missing(
    tiny_dataset: CaptchaDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("fresh", "drawing", "pixels"):
        monkeypatch.delitem(sys.modules, f"captcha_registry.generation.{module}")
    monkeypatch.setitem(sys.modules, "numba", None)
    message = "a training with `fresh` above 0.0 needs the package numba, which is not installed: `.*captcha"
    with pytest.raises(UserError, match=message), load(tiny_dataset, 1.0, tmp_path):
        pass
    with load(tiny_dataset, 0.0, tmp_path) as loaded:
        assert loaded.num_steps == 4


@pytest.mark.thorough
@pytest.mark.usefixtures("uncompiled")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly` option is set")
def test_a_training_stopped_in_mid_epoch_goes_on_as_if_it_had_not_been(
    tiny_dataset: CaptchaDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = fresh_params(0.5, epochs=3, precision="float32")
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    _, undisturbed = train_model(params, tiny_dataset, tmp_path / "one")

    def stop(callback: training._SaveEpoch, step: int, logs: object = None) -> None:  # noqa: ARG001 - Keras calls it so
        if len(callback._state.history) == 1 and step == 1:  # noqa: SLF001 - where it is
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training._SaveEpoch, "on_train_batch_end", stop, raising=False)  # noqa: SLF001
        with pytest.raises(KeyboardInterrupt):
            train_model(params, tiny_dataset, tmp_path / "other")
    assert multiprocessing.active_children() == []
    _, resumed = train_model(params, tiny_dataset, tmp_path / "other")
    assert resumed["loss"].tolist() == pytest.approx(undisturbed["loss"].tolist(), rel=1e-3)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_train_stage_knows_what_draws_only_if_it_draws(share: float) -> None:
    described = describe_training(fresh_params(share), SMALL)
    draws = share > 0
    assert ("fonts" in described) == draws
    assert ({"captcha", "numba", "pillow"} <= set(described["packages"])) == draws
    assert any(name.startswith("captcha_registry.generation") for name in described["modules"]) == draws


def test_characters_that_no_text_holds_are_refused_before_any_work(tiny_dataset: CaptchaDataset, tmp_path: Path) -> None:
    params = fresh_params(0.0, emphasis=Emphasis(characters="0Oo", weight=2, until=0.5))
    message = r"fast.emphasis.characters is '0Oo'; the alphabet '0123456789AB' does not hold 'O', 'o': take characters of it"
    with pytest.raises(UserError, match=message):
        train_model(params, tiny_dataset, tmp_path / "nowhere")
