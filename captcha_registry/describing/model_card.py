"""The card of a model: README.md in its folder, for people who find it without the project.

It begins with the front matter that Hugging Face reads. Source: https://huggingface.co/docs/hub/model-cards
"""

from collections.abc import Mapping

from captcha_registry.describing.front_matter import quote_name
from captcha_registry.recognition.card import ModelCard
from captcha_registry.recognition.scoring import HARD_PAIR

FAMILIES = {
    "cnn": "a convolutional network with one softmax head per position",
    "crnn": "a convolutional network, a bidirectional recurrent layer and CTC",
}

# What the table says of a metric; one that a model does not have is left out.
MEANINGS = {
    "exact_match_0_is_o": "exact match with 0 and O taken for one character",
    "exact_match_with_0_or_o": "exact match on texts that hold a 0 or an O",
    "exact_match_without_0_or_o": "exact match on all other texts",
    "character_accuracy": "one minus the character error rate",
    "cer": "character error rate: edits from reading to text, for each character",
    "expected_calibration_error": "by how much confidence, the probability of the text read, is off on average",
}


def write_model_card(name: str, card: ModelCard, metrics: Mapping[str, int | float]) -> str:
    """Compose a model's card as Markdown, from its model.json and what it reached on the test split."""
    spec = card.spec
    return f"""---
license: apache-2.0
library_name: keras
pipeline_tag: image-to-text
tags:
- captcha
- ocr
model-index:
- name: {quote_name(name)}
  results:
  - task:
      type: image-to-text
    dataset:
      name: {quote_name(card.dataset)}
      type: {quote_name(card.dataset)}
      split: test
      revision: {card.dataset_id}
    metrics:
    - type: exact_match
      value: {metrics["exact_match"]}
    - type: character_accuracy
      value: {metrics["character_accuracy"]}
    - type: cer
      value: {metrics["cer"]}
---

# {name}

Reads captchas of {spec.described_length} characters of `{spec.alphabet}` from pictures of {spec.width}x{spec.height} pixels:
{FAMILIES[card.family]}, {card.num_parameters:,} parameters, preset `{card.preset}`.

| metric on the test split | value | meaning |
|---|---:|---|
| exact match | {metrics["exact_match"]:.4f} | share of texts that are right in every character |
| 95 % interval | {metrics["exact_match_low"]:.4f} to {metrics["exact_match_high"]:.4f} | Wilson's, of the exact match |
{_list_metrics(metrics)}
| test samples | {metrics["test_samples"]:,} | none was seen in training or in the choice of the epoch |

## Trained on

{_describe_samples(card)}
`captcha-registry list --json` says which published version of the dataset has this id.{_describe_machine(card)}

`readings.parquet` holds what it read on every test sample, with the confidence of the text and of each character.

## Limits

It has seen one drawing program, style and font, and reads nothing else for certain: no photographs, no other site's
captchas, no other size or alphabet. Hardest to read are {_name_hard_pair(spec.alphabet)}dark inks, which are drawn faint.

## Read a picture

Pictures of {spec.width}x{spec.height} pixels come as paths, Pillow images or arrays of uint8, one or many. The network is
compared with the SHA-256 in `model.json` before it is loaded, and one that carries code is refused. Where it is published,
`load_model("{name}", repo=URL, version=VERSION)` fetches it.

```python
import captcha_registry

model = captcha_registry.load_model(".")
reading = model.read("captcha.png")[0]
print(reading.text, reading.confidence)
```
"""


def _list_metrics(metrics: Mapping[str, int | float]) -> str:
    return "\n".join(
        f"| {name.replace('_', ' ')} | {metrics[name]:.4f} | {meaning} |" for name, meaning in MEANINGS.items() if name in metrics
    )


def _name_hard_pair(alphabet: str) -> str:
    return "`{}` and `{}`, which differ by half a pixel, and ".format(*HARD_PAIR) if set(alphabet) >= set(HARD_PAIR) else ""


def _describe_samples(card: ModelCard) -> str:
    dataset = f"the dataset `{card.dataset}` with the id `{card.dataset_id}`"
    if not card.fresh:
        return f"The train split of {dataset}."
    if card.fresh < 1:
        return (
            f"The train split of {dataset}, and for {card.fresh:.0%} of a batch\n"
            "pictures that were drawn for the training and are in no dataset."
        )
    return (
        f"Pictures that were drawn for the training, as those of {dataset} are, and that are in no dataset.\n"
        "A part of its train split chose the best epoch."
    )


def _describe_machine(card: ModelCard) -> str:
    if card.precision is None:
        return ""
    threads = f", with {card.num_threads} threads for an operation" if card.num_threads else ""
    return f"\nTrained in `{card.precision}`{threads}: with other ones the same params come to other weights."
