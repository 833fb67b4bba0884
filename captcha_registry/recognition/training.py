"""Train one model: schedule, mixed precision, every GPU of the host, early stopping, and going on after a kill.

After every epoch the complete state, `latest.weights.h5` (network and optimizer), `best.weights.h5` and `history.csv`, appears
in the work folder in one rename. All else that training needs to go on (phase, epoch, best epoch, patience spent) follows
from the history. Keras' `BackupAndRestore` writes weights and epoch one after the other, in place, and keeps neither the
best weights nor the patience.
"""

import shutil
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from types import ModuleType

import numpy as np
import pandas as pd

from captcha_registry.dataset.dataset import CaptchaDataset
from captcha_registry.dataset.spec import DatasetSpec
from captcha_registry.errors import UserError
from captcha_registry.machine import count_usable_cores
from captcha_registry.recognition.batches import TrainingBatches, load_training_batches
from captcha_registry.recognition.decoding import exact_match_metric
from captcha_registry.recognition.frameworks import choose_precision, keras, require_own_settings, tf
from captcha_registry.recognition.layers import build_training_twin
from captcha_registry.recognition.optimizers import build_optimizer
from captcha_registry.recognition.recipe import ModelParams
from captcha_registry.workspace import link_or_copy, name_full_disk

LATEST_WEIGHTS, BEST_WEIGHTS, HISTORY = "latest.weights.h5", "best.weights.h5", "history.csv"


def import_family(params: ModelParams) -> ModuleType:
    """Import the module of a model's family, and only that: a change to another family is no reason to train again."""
    return import_module(params.family_module)


def build_network(params: ModelParams, spec: DatasetSpec) -> keras.Model:
    """Build the untrained network of a family and preset.

    Raises:
        UserError: the pictures are too small for the network, or the texts not such as it reads.
    """
    try:
        network: keras.Model = import_family(params).build_network(params, spec)
    except ValueError as error:
        raise UserError(
            f"no {params.family} of preset {params.preset} fits {spec.described_length} characters on pictures of "
            f"{spec.width}x{spec.height} ({error}): make the pictures larger"
        ) from error
    return network


def build_training_network(params: ModelParams, spec: DatasetSpec) -> keras.Model:
    """Build what is trained in place of that network: equal but for how it computes; its weights fit.

    Raises:
        UserError: as `build_network`.
    """
    return build_training_twin(build_network(params, spec))


def order_operations() -> None:
    """Have a processor do one operation at a time, each on all cores, so that a training comes to the same weights every time.

    TensorFlow adds up the gradients that meet at a batch normalisation in the buffer of the first that nothing else holds;
    with operations side by side that is now one and now another. To be called before TensorFlow computes anything. It would
    start a thread for each core of a container's host, which the container's quota then stops most of the time.
    """
    tf.config.threading.set_intra_op_parallelism_threads(count_usable_cores())
    if not tf.config.list_physical_devices("GPU"):
        tf.config.threading.set_inter_op_parallelism_threads(1)


def prepare_training(params: ModelParams) -> None:
    """Set what a training starts from, before its network is built: seeds, precision, and a GPU's determinism if wanted."""
    keras.utils.set_random_seed(params.seed)
    keras.config.set_dtype_policy(choose_precision(params.recipe.precision))
    # A processor's are in order already, see `order_operations`.
    if params.recipe.deterministic and tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()


def train_model(params: ModelParams, dataset: CaptchaDataset, work_dir: Path) -> tuple[keras.Model, pd.DataFrame]:
    """Train, or go on from what `work_dir` holds; `order_operations` first, if the same weights are wanted every time.

    Returns:
        The network in float32 with the weights of the best epoch, and the history with one row per epoch:
        phase, epoch (from 1, over all phases), loss, exact_match, val_loss, val_exact_match.
    """
    require_own_settings()
    spec, recipe = dataset.manifest.spec, params.recipe
    params.require_known_characters(spec)
    prepare_training(params)
    state = TrainingState(work_dir)
    strategy = choose_strategy()
    if recipe.batch_size % strategy.num_replicas_in_sync:
        raise UserError(
            f"batch_size is {recipe.batch_size}, which {strategy.num_replicas_in_sync} devices cannot share evenly: "
            "expected a multiple"
        )
    first_class, cache_dir = import_family(params).FIRST_CLASS, work_dir / "cache"
    with load_training_batches(dataset, params, first_class=first_class, cache_dir=cache_dir) as batches, strategy.scope():
        network = build_training_network(params, spec)
        for phase in range(state.phase, len(recipe.learning_rates)):
            run_phase(network, params, batches, phase, state)

    # Layers are named by numbers that go on counting from network to network.
    keras.utils.clear_session()
    keras.config.set_dtype_policy("float32")
    trained = build_network(params, spec)
    network.load_weights(state.folder / BEST_WEIGHTS)
    trained.set_weights(network.get_weights())
    return trained, state.history


def choose_strategy() -> tf.distribute.Strategy:
    """Use every GPU of the host, or without one every logical CPU device; several take a part of a batch each.

    A single one goes without what keeps several equal.
    """
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


class TrainingState:
    """What a training has reached: a folder in the work folder that is replaced once an epoch, in one rename."""

    def __init__(self, work_dir: Path) -> None:
        """Take up the state in `work_dir`, or start with none."""
        self._work_dir = work_dir
        # A kill between two renames leaves the older state beside the newer one.
        states = sorted(work_dir.glob("epoch-[0-9][0-9][0-9][0-9][0-9]"))
        self.folder = states[-1] if states else work_dir
        self.history = pd.read_csv(self.folder / HISTORY) if states else pd.DataFrame()

    @property
    def phase(self) -> int:
        """The phase of the last finished epoch."""
        return 0 if self.history.empty else int(self.history["phase"].iloc[-1])

    def epochs_of(self, phase: int) -> int:
        """Count the finished epochs of a phase."""
        return 0 if self.history.empty else int((self.history["phase"] == phase).sum())

    def patience_spent(self) -> int:
        """Count the epochs of the current phase since the best of all."""
        since_best = len(self.history) - 1 - find_best_epoch(self.history)
        return min(since_best, self.epochs_of(self.phase))

    def save_epoch(self, network: keras.Model, phase: int, logs: dict[str, float]) -> None:
        """Write the state after one more epoch, then let it take the place of the state before."""
        row = pd.DataFrame([{"phase": phase, "epoch": len(self.history) + 1, **logs}])
        history = pd.concat([self.history, row], ignore_index=True)
        temporary = self._work_dir / "epoch.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        _require_room(temporary, network)
        network.save_weights(temporary / LATEST_WEIGHTS)
        is_best = find_best_epoch(history) == len(history) - 1
        link_or_copy(temporary / LATEST_WEIGHTS if is_best else self.folder / BEST_WEIGHTS, temporary / BEST_WEIGHTS)
        history.to_csv(temporary / HISTORY, index=False)

        previous, self.history = self.folder, history
        self.folder = temporary.rename(self._work_dir / f"epoch-{len(history):05d}")
        if previous != self._work_dir:
            shutil.rmtree(previous)


def _require_room(folder: Path, network: keras.Model) -> None:
    """Find out whether the weights fit on the disk: where they do not, HDF5 brings the process down."""
    # AdamW with `amsgrad` has four numbers of 4 bytes for each parameter; HDF5 adds its notes.
    size_bytes = 16 * network.count_params() + 2**20
    with name_full_disk(folder / LATEST_WEIGHTS), TemporaryFile(dir=folder) as file:
        file.write(bytes(size_bytes))
        file.flush()


def find_best_epoch(history: pd.DataFrame) -> int:
    """Return the row of the best validation exact match; of equal ones the one with the lowest loss.

    The loss alone picks too early an epoch: where 0 and O differ too little, a network goes on growing certain of readings
    that are wrong, while it gets more and more of the others right.
    """
    ranked = history.sort_values(["val_exact_match", "val_loss"], ascending=[False, True], kind="stable", ignore_index=False)
    return int(ranked.index[0])


class _SaveEpoch(keras.callbacks.Callback):
    """Saves the state after every epoch and ends a phase whose patience is spent."""

    def __init__(self, state: TrainingState, phase: int, patience: int) -> None:
        super().__init__()
        self._state, self._phase, self._patience = state, phase, patience

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Save, and stop when no epoch was the best for `patience` epochs."""
        if not all(np.isfinite(value) for value in (logs or {}).values()):
            raise UserError(f"the loss is no longer finite in epoch {epoch + 1}: lower `learning_rates`, or raise `warmup`")
        self._state.save_epoch(self.model, self._phase, logs or {})
        self.model.stop_training = self._state.patience_spent() >= self._patience


def run_phase(network: keras.Model, params: ModelParams, batches: TrainingBatches, phase: int, state: TrainingState) -> None:
    """Train with one peak learning rate until the epochs or the patience of the recipe are used up."""
    recipe = params.recipe
    num_done = state.epochs_of(phase)
    if num_done >= recipe.epochs or (num_done and state.patience_spent() >= recipe.patience):
        return

    if phase and not num_done:
        network.load_weights(state.folder / BEST_WEIGHTS)
    compile_network(network, params, recipe.learning_rates[phase], num_steps=recipe.epochs * batches.num_steps)
    if num_done:
        network.load_weights(state.folder / LATEST_WEIGHTS)
    network.fit(
        batches.train_from(len(state.history), num_done),
        # One iteration for all epochs: reading goes on while an epoch is validated.
        steps_per_epoch=batches.num_steps,
        validation_data=batches.validation,
        initial_epoch=num_done,
        epochs=recipe.epochs,
        callbacks=[_SaveEpoch(state, phase, recipe.patience)],
        shuffle=False,
        verbose=1 if sys.stdout.isatty() else 2,
    )


def compile_network(network: keras.Model, params: ModelParams, peak_rate: float, num_steps: int) -> None:
    """Give a network what it trains with: optimizer, loss and metric of its family and recipe."""
    optimizer = build_optimizer(params.recipe, peak_rate, num_steps)
    network.compile(optimizer, loss=import_family(params).build_loss(), metrics=[exact_match_metric(params.family)])
    # The variables of the first step: TensorFlow traces a step twice that makes some, which takes seconds.
    optimizer.build(network.trainable_variables)
