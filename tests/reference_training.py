# SPDX-License-Identifier: Apache-2.0
"""The oracle of training: running statistics and batch renormalization, in plain float64 NumPy."""

import numpy as np
import reference


class Running:
    """Running statistics of (C,) channels, written down the way the papers and PyTorch's page do."""

    def __init__(self, mean, var):
        self.mean, self.var = np.array(mean, np.float64), np.array(var, np.float64)
        self.num_batches = 0
        self.data = []

    def update(self, batch, momentum, correction, per_sample):
        """`batch` has shape (N, C, places)."""
        axes = 2 if per_sample else (0, 2)
        mean = batch.mean(axes)
        var = batch.var(axes, ddof=correction)
        if per_sample:
            mean, var = mean.mean(0), var.mean(0)
        self.num_batches += 1
        share = 1 / self.num_batches if momentum is None else momentum
        self.mean = (1 - share) * self.mean + share * mean
        self.var = (1 - share) * self.var + share * var
        self.data.append(np.moveaxis(batch, 1, 0).reshape(batch.shape[1], -1))

    def pooled(self):
        return reference.moments(np.concatenate(self.data, axis=1), 1)


def _channels(x, values):
    return np.reshape(np.asarray(values, np.float64), (-1, *(1,) * (x.ndim - 2)))


def renorm_constants(x, running_mean, running_var, eps, r_max, d_max):
    """r and d of every channel of x, of shape (N, C, ...)."""
    axes = tuple(a for a in range(x.ndim) if a != 1)
    used = reference.moments(x, axes)
    sigma, running_sigma = np.sqrt(used.var + eps), np.sqrt(np.asarray(running_var, np.float64) + eps)
    r = np.clip(sigma / running_sigma, 1 / r_max, r_max)
    d = np.clip((used.mean - running_mean) / running_sigma, -d_max, d_max)
    return r, d


def batch_renorm(x, r, d, weight, bias, eps):
    axes = tuple(a for a in range(x.ndim) if a != 1)
    xhat = reference.normalize(x, axes, eps=eps)
    return (xhat * _channels(x, r) + _channels(x, d)) * _channels(x, weight) + _channels(x, bias)


def batch_renorm_backward(grad_output, x, r, d, weight, eps):
    """With r and d as constants: batch norm's gradients for a weight of its own."""
    plain = reference.batch_norm_backward(grad_output, x, weight=weight * r, training=True, eps=eps)
    return plain._replace(grad_weight=r * plain.grad_weight + d * plain.grad_bias)
