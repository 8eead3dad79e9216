# SPDX-License-Identifier: Apache-2.0
"""What every layer has: named arrays, their gradients, two modes, and a state that is saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from anynorm._shared import Array


class IncompatibleKeys(NamedTuple):
    """What `Layer.load_state_dict` did not load, as in PyTorch.

    Examples
    --------
    >>> import numpy as np
    >>> from anynorm import nn
    >>> nn.GroupNorm(2, 4).load_state_dict({"weight": np.ones(4), "scale": np.ones(4)}, strict=False)
    IncompatibleKeys(missing_keys=['bias'], unexpected_keys=['scale'])
    """

    missing_keys: list[str]
    """Of the layer, and not in the state."""
    unexpected_keys: list[str]
    """In the state, and not of the layer."""


class Layer:
    """Base of all layers, and of those that stand beside them.

    A layer keeps its arrays in attributes. It lists the names of the trained ones in `parameter_names` and those of the
    others that belong to a checkpoint in `buffer_names`; where an attribute is None, the layer does without it. The
    gradient of ``name`` is in ``grad_name``.

    Examples
    --------
    >>> import numpy as np
    >>> from anynorm import nn
    >>> class Scale(nn.Layer):
    ...     parameter_names = ("scale",)
    ...
    ...     def __init__(self):
    ...         self.scale, self.grad_scale = np.ones(1), np.zeros(1)
    ...
    ...     def forward(self, x):
    ...         self.x = x
    ...         return self.scale * x
    ...
    ...     def backward(self, grad_output):
    ...         self.grad_scale += np.sum(grad_output * self.x)
    ...         return grad_output * self.scale
    >>> layer = Scale()
    >>> y = layer.forward(np.array([1.0, 2.0]))
    >>> layer.backward(np.array([10.0, 1.0]))
    array([10.,  1.])
    >>> layer.gradients()
    {'scale': array([12.])}
    """

    parameter_names: ClassVar[tuple[str, ...]] = ()
    """The attributes that are trained."""

    buffer_names: ClassVar[tuple[str, ...]] = ()
    """The attributes that a checkpoint holds beside the parameters."""

    # Where the key of a checkpoint is not the name of the attribute, and which older keys mean the same.
    _keys: ClassVar[Mapping[str, str]] = {}
    _former_keys: ClassVar[Mapping[str, str]] = {}
    # What a checkpoint may leave out. The layer's own value stays then.
    _optional_keys: ClassVar[frozenset[str]] = frozenset()

    training: bool = True
    """Whether the layer is in training mode; see `train` and `eval`."""

    def train(self, mode: bool = True) -> Self:
        """Set the mode to training, or with ``mode=False`` to evaluation.

        Only the layers with running statistics behave differently: in training they normalize with the statistics of
        the batch and update the running ones, in evaluation they normalize with the running ones.

        Parameters
        ----------
        mode : bool, default True
            True for training.

        Returns
        -------
        Layer
            The layer itself.
        """
        self.training = bool(mode)
        return self

    def eval(self) -> Self:
        """Set the mode to evaluation, as ``train(False)`` does.

        Returns
        -------
        Layer
            The layer itself.
        """
        return self.train(False)

    def parameters(self) -> dict[str, Array]:
        """Arrays that are trained, by name.

        Returns
        -------
        dict of str to ndarray
            The layer's own arrays, not copies: an optimizer writes into them.

        Examples
        --------
        One step of gradient descent:

        >>> import numpy as np
        >>> from anynorm import nn
        >>> layer = nn.LayerNorm(2, eps=0)
        >>> y = layer(np.array([[1.0, 3.0]]))
        >>> grad_x = layer.backward(np.array([[0.5, 0.25]]))
        >>> for name, value in layer.parameters().items():
        ...     value -= 0.1 * layer.gradients()[name]
        >>> layer.weight, layer.bias
        (array([1.05 , 0.975], dtype=float32), array([-0.05 , -0.025], dtype=float32))
        """
        return self._named(self.parameter_names)

    def gradients(self) -> dict[str, Array]:
        """Gradients of the parameters, by the names of the parameters.

        Returns
        -------
        dict of str to ndarray
            Each in the shape and dtype of its parameter: the sum over all backward calls since the last `zero_grad`.
            The layer's own arrays, not copies.
        """
        return {name: getattr(self, f"grad_{name}") for name in self.parameters()}

    def zero_grad(self) -> None:
        """Set the gradients to 0. Without it the next backward call adds to them."""
        for gradient in self.gradients().values():
            gradient[...] = 0

    def state_dict(self, *, prefix: str = "") -> dict[str, Array]:
        """Copy all that a checkpoint needs.

        Parameters
        ----------
        prefix : str, default ""
            Put before every key, as the place of the layer in a model: ``"features.1."``.

        Returns
        -------
        dict of str to ndarray
            Parameters and running statistics under PyTorch's keys. Copies, which the next step does not change;
            ``numpy.savez(file, **state)`` writes them.

        Examples
        --------
        >>> from anynorm import nn
        >>> list(nn.BatchNorm(2).state_dict(prefix="bn1."))
        ['bn1.weight', 'bn1.bias', 'bn1.running_mean', 'bn1.running_var', 'bn1.num_batches_tracked']
        """
        return {prefix + key: value.copy() for key, value in self._state().items()}

    def load_state_dict(
        self, state: Mapping[str, npt.ArrayLike], strict: bool = True, *, prefix: str = ""
    ) -> IncompatibleKeys:
        """Copy a checkpoint into the layer's arrays.

        Parameters
        ----------
        state : mapping of str to array_like
            As `state_dict` returns it, or that of the same layer in PyTorch: whatever ``numpy.asarray`` reads. Values
            are rounded to the dtypes of the layer.
        strict : bool, default True
            Refuse a state with missing or unexpected keys. False: load what fits, and leave the rest as it is.
        prefix : str, default ""
            Only the keys that begin with it are looked at, without it.

        Returns
        -------
        IncompatibleKeys
            ``(missing_keys, unexpected_keys)``, both empty if `strict`.

        Raises
        ------
        TypeError
            If a value does not hold numbers that the layer's array can.
        ValueError
            If a shape differs from the layer's, or if keys are missing or unexpected and `strict` is True. Nothing has
            been loaded then.

        Notes
        -----
        ``num_batches_tracked`` may be missing, as in checkpoints of PyTorch before 0.4.1.

        Examples
        --------
        >>> from anynorm import nn
        >>> trained = nn.RMSNorm(2)
        >>> trained.weight[...] = 3
        >>> layer = nn.RMSNorm(2)
        >>> layer.load_state_dict(trained.state_dict())
        IncompatibleKeys(missing_keys=[], unexpected_keys=[])
        >>> layer.weight
        array([3., 3.], dtype=float32)
        """
        given = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        return self._load(f"{type(self).__name__}.load_state_dict", given, strict)

    def _load(self, caller: str, given: Mapping[str, npt.ArrayLike], strict: bool) -> IncompatibleKeys:
        own = self._state()
        given = {self._former_keys.get(key, key): value for key, value in given.items()}
        missing = [key for key in own if key not in given and key not in self._optional_keys]
        unexpected = [key for key in given if key not in own]
        if strict and (missing or unexpected):
            found = (("missing", missing), ("unexpected", unexpected))
            got = "; ".join(f"{what} {', '.join(keys)}" for what, keys in found if keys)
            raise ValueError(f"{caller}: expected the keys {', '.join(own) or '(none)'}, got {got}")
        loaded = {key: _converted(caller, key, value, own[key]) for key, value in given.items() if key in own}
        self._check_state(caller, loaded)
        for key, value in loaded.items():
            own[key][...] = value
        return IncompatibleKeys(missing, unexpected)

    def _check_state(self, caller: str, loaded: Mapping[str, Array]) -> None:
        """Refuse values that the layer cannot work with; shapes are right at this point."""

    def _named(self, names: tuple[str, ...]) -> dict[str, Array]:
        arrays = {name: getattr(self, name) for name in names}
        return {name: array for name, array in arrays.items() if array is not None}

    def _state(self) -> dict[str, Array]:
        """The layer's own arrays under the keys of a checkpoint."""
        arrays = self._named(self.parameter_names + self.buffer_names)
        return {self._keys.get(name, name): array for name, array in arrays.items()}

    def _describe(self) -> str:
        """What stands between the parentheses of the repr."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._describe()})"


def _converted(caller: str, key: str, value: npt.ArrayLike, own: Array) -> Array:
    array: Array = np.asarray(value)
    if array.shape != own.shape:
        raise ValueError(f"{caller}: expected {key} of shape {own.shape}, got {array.shape}")
    numbers = "iu" if own.dtype.kind == "i" else "iuf"
    if array.dtype.kind not in numbers and not (array.dtype.name == "bfloat16" and own.dtype.kind != "i"):
        raise TypeError(f"{caller}: expected {key} of numbers that fit {own.dtype}, got {array.dtype}")
    return array.astype(own.dtype)


def parameter_dtype(caller: str, dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The dtype of a layer's parameters, of those that the norms read."""
    result = np.dtype(dtype)
    if result.name not in {"float16", "bfloat16", "float32", "float64"}:
        raise TypeError(f"{caller}: expected dtype float16, bfloat16, float32 or float64, got {result.name}")
    return result
