# SPDX-License-Identifier: Apache-2.0
"""The rest of a convolutional network in NumPy: what stands between the norms of the examples."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from anynorm import nn

Array = NDArray[Any]


class Conv2d(nn.Layer):
    """A convolution as in torch.nn: x of shape (N, C, H, W), weight (O, C / groups, K, K), a padding of K // 2.

    There is no bias, since a norm follows; one that is folded into the convolution gives it a bias.

    The patches are one large matrix (im2col), so that the work is one matrix product. Its result has the channels last
    in memory, and is returned as the view (N, O, H, W): the norms read any strides without a copy.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("weight",)
    bias: Array | None = None

    def __init__(
        self, rng: np.random.Generator, channels: int, outputs: int, size: int, stride: int = 1, groups: int = 1
    ) -> None:
        fan_in = channels // groups * size**2
        shape = (outputs, channels // groups, size, size)
        self.weight = rng.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)  # He et al., arXiv:1502.01852
        self.grad_weight = np.zeros_like(self.weight)
        self.stride, self.groups = stride, groups

    def _matrices(self) -> Array:
        """The weight as one matrix a group, (G, C * K * K, O), with C and O those of a group."""
        outputs = len(self.weight) // self.groups
        return self.weight.reshape(self.groups, outputs, -1).transpose(0, 2, 1)

    def forward(self, x: Array) -> Array:
        size, stride, edge = self.weight.shape[-1], self.stride, self.weight.shape[-1] // 2
        n, c, h, w = x.shape
        padded = np.zeros((n, c, h + 2 * edge, w + 2 * edge), x.dtype)
        padded[:, :, edge : edge + h, edge : edge + w] = x
        windows = sliding_window_view(padded, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
        n, c, h, w = windows.shape[:4]
        patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, self.groups, -1)
        self.patches, self.padded_shape, self.windows_shape = patches.transpose(1, 0, 2), padded.shape, (n, h, w, c)
        y = (self.patches @ self._matrices()).transpose(1, 0, 2).reshape(n, h, w, -1)
        if self.bias is not None:
            y += self.bias
        return y.transpose(0, 3, 1, 2)

    def backward(self, grad_output: Array) -> Array:
        size, stride, edge = self.weight.shape[-1], self.stride, self.weight.shape[-1] // 2
        n, h, w, c = self.windows_shape
        grad = grad_output.transpose(0, 2, 3, 1).reshape(n * h * w, self.groups, -1).transpose(1, 0, 2)
        self.grad_weight += (grad.transpose(0, 2, 1) @ self.patches).reshape(self.weight.shape)
        grad_patches = (grad @ self._matrices().transpose(0, 2, 1)).transpose(1, 0, 2).reshape(n, h, w, c, size, size)
        grad_x = np.zeros((n, *self.padded_shape[2:], c), grad_output.dtype)
        for i in range(size):  # each pixel gets back what every patch made of it
            for j in range(size):
                grad_x[:, i : i + stride * h : stride, j : j + stride * w : stride] += grad_patches[..., i, j]
        height, width = (length - edge for length in self.padded_shape[2:])
        return grad_x[:, edge:height, edge:width].transpose(0, 3, 1, 2)


class Linear(nn.Layer):
    """``x @ weight.T + bias``, as in torch.nn."""

    parameter_names: ClassVar[tuple[str, ...]] = ("weight", "bias")

    def __init__(self, rng: np.random.Generator, inputs: int, outputs: int) -> None:
        self.weight = rng.normal(0, np.sqrt(1 / inputs), (outputs, inputs)).astype(np.float32)
        self.bias = np.zeros(outputs, np.float32)
        self.grad_weight, self.grad_bias = np.zeros_like(self.weight), np.zeros_like(self.bias)

    def forward(self, x: Array) -> Array:
        self.x = x
        return x @ self.weight.T + self.bias

    def backward(self, grad_output: Array) -> Array:
        self.grad_weight += grad_output.T @ self.x
        self.grad_bias += grad_output.sum(axis=0)
        return grad_output @ self.weight


class ReLU(nn.Layer):
    """``max(x, 0)``."""

    def forward(self, x: Array) -> Array:
        self.positive = x > 0
        return x * self.positive

    def backward(self, grad_output: Array) -> Array:
        return grad_output * self.positive


class GlobalAvgPool(nn.Layer):
    """The mean of every channel: (N, C, H, W) to (N, C)."""

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        y: Array = x.mean(axis=(2, 3))
        return y

    def backward(self, grad_output: Array) -> Array:
        h, w = self.shape[2:]
        return np.broadcast_to(grad_output[:, :, None, None] / np.float32(h * w), self.shape)


class Flatten(nn.Layer):
    """All but the first axis as one: (N, C, H, W) to (N, C * H * W)."""

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, grad_output: Array) -> Array:
        return grad_output.reshape(self.shape)


class Block(nn.Layer):
    """A layer that is made of others, with torch's names for their parameters: ``"child.weight"``."""

    children: dict[str, Any]

    def train(self, mode: bool = True) -> Self:
        for child in self.children.values():
            child.train(mode)
        return super().train(mode)

    def parameters(self) -> dict[str, Array]:
        return {f"{name}.{key}": p for name, child in self.children.items() for key, p in child.parameters().items()}

    def gradients(self) -> dict[str, Array]:
        return {f"{name}.{key}": g for name, child in self.children.items() for key, g in child.gradients().items()}


class Sequential(Block):
    """Layers one after the other."""

    def __init__(self, *layers: Any) -> None:
        self.children = {str(k): layer for k, layer in enumerate(layers)}

    def forward(self, x: Array) -> Array:
        for layer in self.children.values():
            x = layer.forward(x)
        return x

    def backward(self, grad_output: Array) -> Array:
        for layer in reversed(self.children.values()):
            grad_output = layer.backward(grad_output)
        return grad_output


class SGD:
    """Stochastic gradient descent with momentum, and weight decay for all parameters."""

    def __init__(self, network: nn.Layer, momentum: float = 0.9, weight_decay: float = 1e-4) -> None:
        self.network, self.momentum, self.weight_decay = network, np.float32(momentum), np.float32(weight_decay)
        gradients = network.gradients()
        self.slots = [(value, gradients[name], np.zeros_like(value)) for name, value in network.parameters().items()]

    def step(self, rate: float) -> None:
        """One step against the gradients, which are set to 0."""
        for value, gradient, velocity in self.slots:
            velocity[...] = self.momentum * velocity + gradient + self.weight_decay * value
            value[...] -= np.float32(rate) * velocity
        self.network.zero_grad()


def cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """The mean cross entropy of the softmax, and its gradient with respect to `logits`."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    gradient = np.exp(log_p)
    gradient[rows, labels] -= 1
    return float(-log_p[rows, labels].mean()), gradient / np.float32(len(labels))


@cache
def load_digits() -> tuple[Array, Array, Array, Array]:
    """scikit-learn's 1797 handwritten digits of 8 x 8 pixels: training images, labels, test images, labels."""
    try:
        from sklearn import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise SystemExit(f'{error}. The digits are scikit-learn\'s: pip install "anynorm[examples]"') from None
    digits = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = (digits.images[order, None] / 8 - 1).astype(np.float32)  # between -1 and 1
    labels = digits.target[order]
    return images[:1344], labels[:1344], images[1344:], labels[1344:]
