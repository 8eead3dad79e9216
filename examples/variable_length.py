# SPDX-License-Identifier: Apache-2.0
"""Sentences of different lengths in one padded batch: what padding does to a norm, and what a mask undoes.

A batch of sentences is an array of (sentences, words, features), filled up with zeros to the longest. To a norm a zero is
a number like any other: the mean moves towards 0, the variance with it, and every word changes with the length of its
neighbours. With `where` the padding is in no set, and each word is what it is without any padding at all.

Needs nothing but anynorm; run `python examples/variable_length.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import anynorm

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

SENTENCES, FEATURES, SHORTEST, LONGEST = 64, 32, 3, 40
PADDINGS = (1.0, 1.5, 2.0, 4.0)  # of the longest sentence


def make_sentences(seed: int = 0) -> list[Array]:
    """Words as vectors whose features have means and deviations of their own, as embeddings have."""
    rng = np.random.default_rng(seed)
    mean, deviation = rng.normal(1, 1, FEATURES), rng.uniform(0.5, 2, FEATURES)
    lengths = rng.integers(SHORTEST, LONGEST, SENTENCES, endpoint=True)
    lengths[0] = LONGEST
    return [rng.normal(mean, deviation, (length, FEATURES)).astype(np.float32) for length in lengths]


def padded(sentences: list[Array], length: int) -> tuple[Array, Mask]:
    """The batch of (sentences, length, features) with zeros behind each sentence, and where its words are."""
    x = np.zeros((len(sentences), length, FEATURES), np.float32)
    for row, sentence in zip(x, sentences, strict=True):
        row[: len(sentence)] = sentence
    lengths = np.array([len(sentence) for sentence in sentences])
    return x, np.arange(length) < lengths[:, np.newaxis]


# Each is a call on a batch; `where` is left out by those who do not think of it.
NORMS: dict[str, Callable[..., Any]] = {
    "BatchNorm": lambda x, **where: anynorm.batch_norm(x, training=True, channel_axis=2, **where),
    "LayerNorm": lambda x, **where: anynorm.layer_norm(x, axis=(1, 2), **where),
    "InstanceNorm": lambda x, **where: anynorm.instance_norm(x, channel_axis=2, **where),
}


def without_padding(name: str, sentences: list[Array]) -> Array:
    """The words as the norm leaves them where no padding is: all of the batch at once, or one sentence at a time."""
    if name == "BatchNorm":
        return anynorm.normalize(np.concatenate(sentences), 0)
    axes = (0, 1) if name == "LayerNorm" else (0,)
    return np.concatenate([anynorm.normalize(sentence, axes) for sentence in sentences])


def leak(name: str, sentences: list[Array], length: int, *, masked: bool) -> tuple[float, float]:
    """The deviation of the words after the norm, and the largest change of one that padding to `length` makes."""
    x, is_word = padded(sentences, length)
    where = {"where": is_word[:, :, np.newaxis]} if masked else {}
    words = NORMS[name](x, **where)[is_word]
    return float(words.std()), float(np.abs(words - without_padding(name, sentences)).max())


def main() -> None:
    """Print the table."""
    sentences = make_sentences()
    words = sum(map(len, sentences))
    print(f"{SENTENCES} sentences of {SHORTEST} to {LONGEST} words, {words} words of {FEATURES} features in all\n")
    print(f"{'':34}without where            with where")
    print(f"{'':22}{'padding':>8}{'std':>9}{'largest change':>18}{'std':>9}{'largest change':>18}")
    for name in NORMS:
        for factor in PADDINGS:
            length = int(factor * LONGEST)
            share = 1 - words / (length * SENTENCES)
            plain, masked = (leak(name, sentences, length, masked=choice) for choice in (False, True))
            print(f"{name:14}{length:>4} words{share:>7.0%}{plain[0]:>9.3f}{plain[1]:>18.3f}{masked[0]:>9.3f}{masked[1]:>18.1e}")  # fmt: skip
    print("\nLargest change: of any feature of any word, against the same norm where no padding is.")


if __name__ == "__main__":
    main()
