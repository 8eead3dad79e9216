# SPDX-License-Identifier: Apache-2.0
"""What the backward functions return."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt


class Gradients(NamedTuple):
    """The gradients of a loss with respect to the arguments of a norm; None for those that were not computed.

    Examples
    --------
    >>> import numpy as np
    >>> import anynorm
    >>> x = np.array([[0.0, 0.0, 2.0, 2.0]])
    >>> gradients = anynorm.layer_norm_backward(np.ones_like(x), x, weight=np.ones(4))
    >>> gradients.grad_weight.round(3)
    array([-1., -1.,  1.,  1.])
    >>> gradients.grad_bias is None
    True
    """

    grad_input: npt.NDArray[Any] | None
    """With respect to `x`, and of its shape."""
    grad_weight: npt.NDArray[Any] | None
    """With respect to `weight`, and of its shape."""
    grad_bias: npt.NDArray[Any] | None
    """With respect to `bias`, and of its shape."""
