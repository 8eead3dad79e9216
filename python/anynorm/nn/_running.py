# SPDX-License-Identifier: Apache-2.0
"""What the norms with channels and running statistics have in common as layers."""

from __future__ import annotations

from operator import index
from typing import ClassVar, SupportsIndex

import numpy as np
import numpy.typing as npt

from anynorm._shared import Array
from anynorm.nn._norm import ChannelNorm


class RunningNorm(ChannelNorm):
    """A norm of data with channels that may keep running statistics."""

    buffer_names: ClassVar[tuple[str, ...]] = ("running_mean", "running_var", "num_batches_tracked")
    _optional_keys: ClassVar[frozenset[str]] = frozenset({"num_batches_tracked"})

    eps: float
    momentum: float | None
    running_mean: Array | None
    running_var: Array | None
    num_batches_tracked: Array | None

    def _make_arrays(
        self, num_features: SupportsIndex, affine: bool, bias: bool, track: bool, dtype: npt.DTypeLike
    ) -> None:
        self.num_features = index(num_features)
        self._make_parameters((self.num_features,), affine, affine and bias, dtype)
        # A step of a running mean would often be too small to change one of a half type.
        kind = np.float64 if np.dtype(dtype) == np.float64 else np.float32
        self.running_mean = np.zeros(self.num_features, kind) if track else None
        self.running_var = np.ones(self.num_features, kind) if track else None
        self.num_batches_tracked = np.zeros((), np.int64) if track else None

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        self._check_channels(shape, self.num_features)

    def _describe(self) -> str:
        usual = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.weight is not None}"
        usual += f", bias={self.bias is not None}, track_running_stats={self.running_mean is not None}"
        return self._with_others(usual)
