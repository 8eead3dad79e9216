# SPDX-License-Identifier: Apache-2.0
"""A small network of Ghost bottlenecks, trained with batch norm after every convolution, which then vanishes into it.

A Ghost module makes half of its maps by a convolution and the other half from the first, by a cheap depthwise one (Han
et al., arXiv:1911.11907). For inference `fold_batch_norm` turns each batch norm into weights of the convolution before
it: the results stay, the passes over the maps go.

Needs `pip install "anynorm[examples]"`; run `python examples/ghostnet_block.py [--quick]`.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from itertools import pairwise
from typing import Any

# The threads of OpenBLAS wait for work by spinning, in the way of everybody else's: the norm after a matrix product took
# 2.8 ms on two cores, and 0.1 ms with this. NumPy reads it when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from _network import SGD, Array, Block, Conv2d, GlobalAvgPool, Linear, ReLU, Sequential, cross_entropy, load_digits

import anynorm
from anynorm import nn

BATCH = 64


class GhostModule(Block):
    """Maps by a convolution, and as many ghosts of them by a depthwise 3 x 3 convolution; figure 2 of the paper."""

    def __init__(
        self, rng: np.random.Generator, channels: int, outputs: int, size: int = 1, stride: int = 1, *, relu: bool
    ) -> None:
        half = outputs // 2
        activation = [ReLU()] if relu else []
        self.children = {
            "primary": Sequential(Conv2d(rng, channels, half, size, stride), nn.BatchNorm(half), *activation),
            "cheap": Sequential(Conv2d(rng, half, half, 3, groups=half), nn.BatchNorm(half), *activation),
        }

    def forward(self, x: Array) -> Array:
        maps = self.children["primary"].forward(x)
        return np.concatenate([maps, self.children["cheap"].forward(maps)], axis=1)

    def backward(self, grad_output: Array) -> Array:
        grad_maps, grad_ghosts = np.split(grad_output, 2, axis=1)
        grad_maps = grad_maps + self.children["cheap"].backward(grad_ghosts)
        grad_x: Array = self.children["primary"].backward(grad_maps)
        return grad_x


class GhostBottleneck(Block):
    """Two Ghost modules, wide and narrow, the second without ReLU, beside a shortcut; figure 3 of the paper."""

    def __init__(self, rng: np.random.Generator, channels: int, hidden: int) -> None:
        wide = GhostModule(rng, channels, hidden, relu=True)
        self.children = {"modules": Sequential(wide, GhostModule(rng, hidden, channels, relu=False))}

    def forward(self, x: Array) -> Array:
        y: Array = x + self.children["modules"].forward(x)
        return y

    def backward(self, grad_output: Array) -> Array:
        grad_x: Array = grad_output + self.children["modules"].backward(grad_output)
        return grad_x


def make_network(rng: np.random.Generator) -> Sequential:
    """A 3 x 3 Ghost module with stride 2, two bottlenecks, the mean of each map, and a linear layer for the ten digits."""
    bottlenecks = [GhostBottleneck(rng, 16, 48) for _ in range(2)]
    return Sequential(GhostModule(rng, 1, 16, 3, 2, relu=True), *bottlenecks, GlobalAvgPool(), Linear(rng, 16, 10))


def folded(layer: Any) -> Any:
    """The same layer for inference: no batch norm is left in it, and its convolutions have a bias instead."""
    if not isinstance(layer, Block):
        return layer
    children = {name: folded(child) for name, child in layer.children.items()}
    for (name, convolution), (following, norm) in pairwise(layer.children.items()):
        if isinstance(convolution, Conv2d) and isinstance(norm, nn.BatchNorm):
            children[name] = copy.copy(convolution)
            children[name].weight, children[name].bias = anynorm.fold_batch_norm(
                convolution.weight,
                convolution.bias,
                norm.running_mean,
                norm.running_var,
                norm.weight,
                norm.bias,
                norm.eps,
            )
            del children[following]
    whole = copy.copy(layer)
    whole.children = children
    return whole


def count(layer: Any, kind: type) -> int:
    """How many layers of a kind there are in a network."""
    inside = sum(count(child, kind) for child in layer.children.values()) if isinstance(layer, Block) else 0
    return inside + isinstance(layer, kind)


def train(network: Sequential, images: Array, labels: Array, steps: int, rng: np.random.Generator) -> None:
    """Train on random batches, and print the loss from time to time."""
    optimizer = SGD(network)
    for step in range(steps):
        batch = rng.integers(len(images), size=BATCH)
        loss, gradient = cross_entropy(network.forward(images[batch]), labels[batch])
        network.backward(gradient)
        optimizer.step(0.1)
        if step % max(steps // 8, 1) == 0 or step == steps - 1:
            print(f"step {step + 1:4} of {steps}   loss {loss:.3f}", flush=True)


def milliseconds(network: Sequential, images: Array) -> float:
    """The shortest of five forward calls."""
    laps = []
    for _ in range(5):
        start = time.perf_counter()
        network.forward(images)
        laps.append(time.perf_counter() - start)
    return 1e3 * min(laps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    images, labels, test_images, test_labels = load_digits()
    network = make_network(rng)
    train(network, images, labels, 8 if options.quick else 240, rng)

    network.eval()
    small = folded(network)
    print()
    for title, each in (("with batch norm", network), ("folded", small)):
        accuracy = (each.forward(test_images).argmax(axis=1) == test_labels).mean()
        print(
            f"{title:16}{count(each, Conv2d):3} convolutions,{count(each, nn.BatchNorm):3} batch norms, "
            f"accuracy {100 * accuracy:.1f} %, {milliseconds(each, test_images):.1f} ms"
        )
    logits = network.forward(test_images)
    difference = np.abs(small.forward(test_images) - logits).max() / np.abs(logits).max()
    print(f"largest difference of the logits: {difference:.1e} of the largest")


if __name__ == "__main__":
    main()
