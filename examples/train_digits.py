# SPDX-License-Identifier: Apache-2.0
"""A convolutional network on handwritten digits, with each norm and with batches from 64 images down to 2.

The setting is that of Wu and He (Group Normalization, arXiv:1803.08494, section 4.1): every network sees the same number
of images, and the learning rate is proportional to the batch size. Batch norm is evaluated with its running statistics.
A norm follows each of three convolutions, on maps of 8 x 8, 4 x 4 and 2 x 2 pixels, and the hidden layer, which has no
pixels: there a batch of 2 gives batch norm two values a channel.

Needs `pip install "anynorm[examples]"`; run `python examples/train_digits.py [-o digits.png] [--no-picture]`. That
takes minutes; --quick takes seconds, and shows that it runs and nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

# The matrices are small, and there is a process for each core. NumPy reads it when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from _network import SGD, Array, Conv2d, Flatten, Linear, ReLU, Sequential, cross_entropy, load_digits

from anynorm import nn

GROUPS = 4
RATE = 0.1  # of a batch of 64
BATCH_SIZES = (64, 16, 8, 4, 2)
STAGES = ((16, 1, 8), (32, 2, 4), (64, 2, 2))  # channels, stride, and height and width of the maps that come out
HIDDEN = 64

# What stands before a ReLU whose input has this shape without the axis of the batch: (C, H, W), or (C,).
NORMS: dict[str, Callable[[tuple[int, ...]], list[nn.Layer]]] = {
    "BatchNorm": lambda shape: [nn.BatchNorm(shape[0])],
    "GroupNorm": lambda shape: [nn.GroupNorm(GROUPS, shape[0])],
    "LayerNorm": lambda shape: [nn.LayerNorm(shape)],
    "InstanceNorm": lambda shape: [nn.InstanceNorm(shape[0], affine=True)] if len(shape) > 1 else [],
    "no norm": lambda shape: [],
}

Run = tuple[str, int, int]  # norm, batch size, seed


def make_network(norm: str, rng: np.random.Generator) -> Sequential:
    """Three convolutions and a hidden layer, each with its norm and ReLU; then a linear layer for the ten digits."""
    layers: list[nn.Layer] = []
    channels = 1
    for outputs, stride, size in STAGES:
        layers += [Conv2d(rng, channels, outputs, 3, stride), *NORMS[norm]((outputs, size, size)), ReLU()]
        channels = outputs
    layers += [Flatten(), Linear(rng, channels * size**2, HIDDEN), *NORMS[norm]((HIDDEN,)), ReLU()]
    return Sequential(*layers, Linear(rng, HIDDEN, 10))


def batches(samples: int, size: int, epochs: int, rng: np.random.Generator) -> Iterator[Array]:
    """The samples of each step; every epoch has all of them in a new order."""
    for _ in range(epochs):
        yield from rng.permutation(samples).reshape(-1, size)


def train(norm: str, batch_size: int, seed: int, epochs: int, samples: int) -> float:
    """Train a new network, and return its accuracy on the test images in percent."""
    images, labels, test_images, test_labels = load_digits()
    rng = np.random.default_rng(seed)
    network = make_network(norm, rng)
    optimizer = SGD(network)
    steps = epochs * samples // batch_size
    for step, batch in enumerate(batches(samples, batch_size, epochs, rng)):
        _, gradient = cross_entropy(network.forward(images[batch]), labels[batch])
        network.backward(gradient)
        # A tenth after each 30 % of the steps: as Wu and He after 30, 60 and 90 of 100 epochs.
        optimizer.step(RATE * batch_size / 64 * 0.1 ** (10 * step // (3 * steps)))
    logits = network.eval().forward(test_images)
    return 100 * float((logits.argmax(axis=1) == test_labels).mean())


def train_all(runs: Sequence[Run], epochs: int, samples: int, workers: int) -> dict[Run, float]:
    """The accuracy of each run. A line for each that is done tells what it gave and how long the rest will take."""

    def work(run: Run) -> float:  # a step costs as much as 5 images, beside those it is taken with
        return 1 + 5 / run[1]

    start, done, whole = time.monotonic(), 0.0, sum(map(work, runs))
    accuracies = {}
    with ProcessPoolExecutor(workers) as pool:
        futures = {pool.submit(train, *run, epochs, samples): run for run in runs}
        for number, future in enumerate(as_completed(futures), 1):
            run = futures[future]
            norm, batch_size, seed = run
            accuracies[run] = future.result()
            done += work(run)
            gone = time.monotonic() - start
            print(
                f"{number:4} of {len(runs)}  {norm:12}  batches of {batch_size:2}  seed {seed}  "
                f"{accuracies[run]:5.1f} %   {clock(gone)} gone, about {clock(gone * (whole / done - 1))} to go",
                flush=True,
            )
    return accuracies


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def print_table(results: dict[str, Array], sizes: Sequence[int]) -> None:
    """Mean accuracy over the seeds, and its standard error."""
    print(f"\n{'accuracy in %, batches of':26}" + "".join(f"{size:14}" for size in sizes))
    for norm, values in results.items():
        seeds = values.shape[1]
        errors = values.std(axis=1, ddof=1) / np.sqrt(seeds) if seeds > 1 else np.zeros(len(sizes))
        cells = (f"{mean:8.1f} +- {error:.1f}" for mean, error in zip(values.mean(axis=1), errors, strict=True))
        print(f"{norm:26}" + "".join(f"{cell:>14}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("train_digits.png"), help="where the picture goes")
    parser.add_argument("--no-picture", action="store_true", help="print only")
    parser.add_argument("--quick", action="store_true", help="a few steps with each norm, to see that it runs")
    parser.add_argument("--epochs", type=int, default=8, help="how often each network sees each image (default 8)")
    parser.add_argument("--seeds", type=int, default=5, help="how many networks are averaged (default 5)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    options = parser.parse_args()

    sizes: Sequence[int] = BATCH_SIZES
    epochs, seeds, samples = options.epochs, options.seeds, 1344
    if options.quick:
        sizes, epochs, seeds, samples = (16, 4), 1, 1, 192
    norms = list(NORMS)
    load_digits()  # before the processes are made, which then have them
    runs = [(norm, size, seed) for seed, size, norm in itertools.product(range(seeds), reversed(sizes), norms)]
    accuracies = train_all(runs, epochs, samples, options.workers)
    results = {
        norm: np.array([[accuracies[norm, size, seed] for seed in range(seeds)] for size in sizes]) for norm in norms
    }
    print_table(results, sizes)
    if not options.no_picture:
        try:
            from _lines import save_picture
        except ImportError as error:
            raise SystemExit(f'{error}. The picture needs matplotlib: pip install "anynorm[examples]"') from None
        about = (
            f"{seeds} networks a point, each trained with {epochs * samples} images; bars: standard error of the mean"
        )
        save_picture(options.output, sizes, results, "Handwritten digits: which norm needs the batch", about)
        print(f"Picture: {options.output}")


if __name__ == "__main__":
    main()
