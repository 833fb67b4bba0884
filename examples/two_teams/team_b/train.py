"""Team B's own trainer: a small network on whatever version of the dataset is imported."""

import json
from pathlib import Path

import keras
import numpy as np
from ruamel.yaml import YAML

import captcha_registry


def encode(labels: np.ndarray, alphabet: str) -> np.ndarray:
    """Turn texts into `(samples, length)` class numbers."""
    return np.array([[alphabet.index(character) for character in label] for label in labels])


def main() -> None:
    """Train and score."""
    params = YAML(typ="safe").load(Path("params.yaml"))["train"]
    keras.utils.set_random_seed(params["seed"])
    samples = captcha_registry.load("data/digits")
    spec = samples.manifest.spec
    (images, labels), (test_images, test_labels) = (samples.split(name).to_numpy() for name in ("train", "test"))
    layers = [keras.Input((spec.height, spec.width, 3)), keras.layers.Rescaling(1 / 255), keras.layers.AveragePooling2D(2)]
    for filters in (32, 64, 96, 128):
        layers += [keras.layers.Conv2D(filters, 3, 2, padding="same", use_bias=False), keras.layers.BatchNormalization()]
        layers += [keras.layers.ReLU()]
    layers += [keras.layers.Flatten(), keras.layers.Dense(spec.length * len(spec.alphabet))]
    layers += [keras.layers.Reshape((spec.length, len(spec.alphabet)))]
    network = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(2e-3), loss)
    network.fit(images, encode(labels, spec.alphabet), batch_size=64, epochs=params["epochs"], verbose=2)
    right = network.predict(test_images, batch_size=256, verbose=0).argmax(-1) == encode(test_labels, spec.alphabet)
    metrics = {
        "train_samples": len(images),
        "exact_match": round(float(right.all(1).mean()), 4),
        "characters_right": round(float(right.mean()), 4),
    }
    Path("metrics.json").write_text(f"{json.dumps(metrics, indent=2)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
