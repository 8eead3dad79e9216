# SPDX-License-Identifier: Apache-2.0
"""A convolutional network on handwritten digits with each norm and batches of 64 down to 2: which norm needs the batch.

The setting is that of Wu and He (Group Normalization, arXiv:1803.08494, section 4.1): every network sees the same number
of samples, and the learning rate is proportional to the batch size. Batch norm is evaluated with its running statistics.

Needs `pip install "anynorm[examples]"`; run `python examples/train_digits.py [-o digits.png]`, minutes; or with --quick,
seconds, which shows that it runs and nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

# The matrices are small, and the processes share the cores. Before NumPy is imported, which reads it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
from _network import SGD, Array, Conv2d, GlobalAvgPool, Linear, ReLU, Sequential, cross_entropy, load_digits  # noqa: E402

from anynorm import nn  # noqa: E402

GROUPS = 4
RATE = 0.1  # of batches of 64
BATCH_SIZES = (64, 16, 8, 4, 2)
STAGES = ((16, 1, 8), (32, 2, 4), (64, 2, 2))  # channels, stride, and height and width of what comes out

# What stands after each convolution, by its channels, height and width.
NORMS: dict[str, Callable[[int, int], list[nn.Layer]]] = {
    "BatchNorm": lambda channels, size: [nn.BatchNorm(channels)],
    "GroupNorm": lambda channels, size: [nn.GroupNorm(GROUPS, channels)],
    "LayerNorm": lambda channels, size: [nn.LayerNorm((channels, size, size))],
    "InstanceNorm": lambda channels, size: [nn.InstanceNorm(channels, affine=True)],
    "none": lambda channels, size: [],
}


def make_network(norm: str, rng: np.random.Generator) -> Sequential:
    """Two convolutions in each stage, each with its norm and ReLU; then the mean over the image, and a linear layer."""
    layers: list[nn.Layer] = []
    channels = 1
    for outputs, stride, size in STAGES:
        for step in (stride, 1):
            layers += [Conv2d(rng, channels, outputs, 3, step), *NORMS[norm](outputs, size), ReLU()]
            channels = outputs
    return Sequential(*layers, GlobalAvgPool(), Linear(rng, channels, 10))


def accuracy(network: Sequential, images: Array, labels: Array) -> float:
    """The share of images whose digit is found, in evaluation mode."""
    network.eval()
    logits = network.forward(images)
    network.train()
    return float((logits.argmax(axis=1) == labels).mean())


def train(norm: str, batch_size: int, seed: int, epochs: int) -> float:
    """Train one network from the start, and return its accuracy on the test images."""
    train_x, train_y, test_x, test_y = load_digits()
    rng = np.random.default_rng(seed)
    network = make_network(norm, rng)
    optimizer = SGD(network)
    steps = epochs * len(train_x) // batch_size
    for step, batch in enumerate(batches(len(train_x), batch_size, epochs, rng)):
        _, gradient = cross_entropy(network.forward(train_x[batch]), train_y[batch])
        network.backward(gradient)
        # A tenth after each 30 % of the samples, as Wu and He do after 30, 60 and 90 of 100 epochs.
        optimizer.step(RATE * batch_size / 64 * 0.1 ** (10 * step // (3 * steps)))
    return accuracy(network, test_x, test_y)


def batches(samples: int, size: int, epochs: int, rng: np.random.Generator) -> Iterator[Array]:
    """The samples of each step, every epoch in a new order."""
    for _ in range(epochs):
        yield from rng.permutation(samples).reshape(-1, size)
