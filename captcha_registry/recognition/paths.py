"""CTC by its paths: how probable a text is, and every text that differs from it by one edit, each over all of its paths.

A path goes through the states of a text: its characters, with a blank before, between and after them. In a step it stays, or goes
on by one, or by two past a blank between characters that differ. Source: Graves et al. 2006, section 4.1,
https://www.cs.toronto.edu/~graves/icml_2006.pdf

The ways from the left to each state, and from there to the right, are summed up once. A text of one edit is a way to a gap
between two characters, a run of steps at the character that is put there, and a way on from this gap or the next one.

Probabilities are float64 and no logarithms: that of the best path is above 1e-253 for the 128 columns and 94 characters that a
network has at most.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BLANK = 0

Classes = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


class Edit(NamedTuple):
    """The text with `put`, a class or `BLANK` for nothing, in the place of its characters from `start` to `stop`."""

    start: int
    stop: int
    put: int
    probability: float


class Neighbours(NamedTuple):
    """What is around a text.

    Attributes:
        probability: of the text itself.
        characters: probability of each of its characters if the others are right; longer where other texts are.
        edits: the most probable texts of one edit, in this order.
    """

    probability: float
    characters: list[float]
    edits: list[Edit]


class _Ways(NamedTuple):
    """Probabilities of ways to the gaps of texts before each step, or on from them: `(batch, time + 1, longest text + 1)`.

    Attributes:
        blank: over the blank in the gap.
        character: over the character at its far side, which may not be put into the gap without a blank.
    """

    blank: Probabilities
    character: Probabilities


def collapse(paths: Classes) -> Classes:
    """Merge the repeats of paths `(batch, time)`, drop blanks, and fill up with blanks behind."""
    kept = paths != BLANK
    kept[:, 1:] &= paths[:, 1:] != paths[:, :-1]
    return np.take_along_axis(np.where(kept, paths, BLANK), np.argsort(~kept, axis=-1, kind="stable"), axis=-1)


def find_neighbours(probabilities: Probabilities, texts: Classes, num_edits: int) -> list[Neighbours]:
    """Find how probable texts are, and the most probable ones of one edit: a character replaced, added or removed.

    Args:
        probabilities: of each class in each step, `(batch, time, classes)`.
        texts: classes `(batch, longest text)`, shorter ones filled up with blanks.
        num_edits: how many at most; only texts that have a path are listed.
    """
    to, on, own = _find_ways(probabilities, texts)
    replaced, added = _sum_runs(probabilities, texts, to, on)
    removed = _sum_removed(texts, to, on)
    same = np.arange(replaced.shape[-1]) == texts[:, :, None]
    of_places = replaced.sum(axis=-1)  # 0 behind the end of a text
    characters = np.minimum(np.divide(own[:, None], of_places, out=np.ones_like(of_places), where=of_places > 0), 1.0)
    # Each text once, and not the text itself: a character that is added or removed beside its like is the first of them.
    replaced[same], added[:, 1:][same], removed[:, 1:][texts[:, 1:] == texts[:, :-1]] = 0.0, 0.0, 0.0
    found = np.concatenate([part.reshape(len(texts), -1) for part in (replaced, added, removed)], axis=-1)
    places = _list_places(*replaced.shape[1:])
    edits: list[list[Edit]] = [[] for _ in texts]
    for _ in range(num_edits):
        best = found.argmax(axis=-1)
        parts = found[np.arange(len(texts)), best]
        for listed, number, probability in zip(edits, best.tolist(), parts.tolist(), strict=True):
            if probability:
                start, stop, put = places[number]
                listed.append(Edit(start, stop, put, probability))
        found[np.arange(len(texts)), best] = 0.0
    return [Neighbours(*row) for row in zip(np.minimum(own, 1.0).tolist(), characters.tolist(), edits, strict=True)]


def _list_places(length: int, num_classes: int) -> list[tuple[int, int, int]]:
    """List start, stop and class of all edits, in the order of replaced, added and removed."""
    replaced = [(place, place + 1, put) for place in range(length) for put in range(num_classes)]
    added = [(place, place, put) for place in range(length + 1) for put in range(num_classes)]
    return [*replaced, *added, *((place, place + 1, BLANK) for place in range(length))]


def _find_ways(probabilities: Probabilities, texts: Classes) -> tuple[_Ways, _Ways, Probabilities]:
    """Find the ways to the gaps of texts, those on from them, and the probability of each text."""
    states = np.full((len(texts), 2 * texts.shape[1] + 1), BLANK)
    states[:, 1::2] = texts
    may_pass = (states[:, 2:] != BLANK) & (states[:, 2:] != states[:, :-2])
    emitted = np.take_along_axis(probabilities, states[:, None, :], axis=-1)  # (batch, time, states)
    lengths = (texts != BLANK).sum(axis=-1, keepdims=True)
    numbers = np.arange(states.shape[1])
    num_steps = emitted.shape[1]

    # Before step t a way is in a state, after it; before the first it is in the blank in front, at no cost.
    reached = np.zeros((len(texts), num_steps + 1, len(numbers)))
    reached[:, 0, 0] = 1.0
    for step in range(num_steps):
        came = reached[:, step].copy()
        came[:, 1:] += reached[:, step, :-1]
        came[:, 2:] += np.where(may_pass, reached[:, step, :-2], 0.0)
        reached[:, step + 1] = came * emitted[:, step]
    # And on from step t, which is in the state; behind the last one it has to be in the blank at the end, at no cost.
    left = np.zeros_like(reached)
    left[:, num_steps] = numbers == 2 * lengths
    for step in reversed(range(num_steps)):
        goes = left[:, step + 1].copy()
        goes[:, :-1] += left[:, step + 1, 1:]
        goes[:, :-2] += np.where(may_pass, left[:, step + 1, 2:], 0.0)
        left[:, step] = goes * emitted[:, step]
    to = _Ways(reached[:, :, 0::2], np.pad(reached[:, :, 1::2], ((0, 0), (0, 0), (1, 0))))
    on = _Ways(left[:, :, 0::2], np.pad(left[:, :, 1::2], ((0, 0), (0, 0), (0, 1))))
    return to, on, left[:, 0, :2].sum(axis=-1)


def _sum_runs(probabilities: Probabilities, texts: Classes, to: _Ways, on: _Ways) -> tuple[Probabilities, Probabilities]:
    """Sum up the texts with each class in the place of each character, and those with each class in each gap."""
    classes = np.arange(probabilities.shape[-1])
    after_other = classes != np.pad(texts, ((0, 0), (1, 0)))[:, :, None]
    before_other = classes != np.pad(texts, ((0, 0), (0, 1)))[:, :, None]
    run = np.zeros(after_other.shape)
    replaced, added = np.zeros_like(run[:, 1:]), np.zeros_like(run)
    for step in range(probabilities.shape[1]):
        run += to.blank[:, step, :, None] + np.where(after_other, to.character[:, step, :, None], 0.0)
        run *= probabilities[:, step, None, :]
        goes = on.blank[:, step + 1, :, None] + np.where(before_other, on.character[:, step + 1, :, None], 0.0)
        replaced += run[:, :-1] * goes[:, 1:]
        added += run * goes
    replaced[..., BLANK] = added[..., BLANK] = 0.0
    return replaced, added


def _sum_removed(texts: Classes, to: _Ways, on: _Ways) -> Probabilities:
    """Sum up the texts without each of their characters: ways to the gap before it, and on at the next character, or the end."""
    following = np.pad(texts, ((0, 0), (0, 1)))[:, 1:]
    previous = np.pad(texts, ((0, 0), (1, 0)))[:, :-1]
    to_blank, to_character = to.blank[:, :, :-1], to.character[:, :, :-1]
    came = to_blank + np.where((following != previous)[:, None], to_character, 0.0)
    removed = (came * on.character[:, :, 1:]).sum(axis=1)
    is_last = (texts != BLANK) & (following == BLANK)
    return np.asarray(removed + np.where(is_last, to_blank[:, -1] + to_character[:, -1], 0.0))
