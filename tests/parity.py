# SPDX-License-Identifier: Apache-2.0
"""The largest differences from torch in float64, per norm, dtype and layout, as Markdown: `python tests/parity.py`.

Both compute from the same stored values, anynorm in the dtype of the column. Differences are of the largest magnitude
that the array of torch has. Needs torch and ml_dtypes.
"""

from collections import defaultdict

import cases
import numpy as np
import torch
from ml_dtypes import bfloat16
from torch.nn import functional

import anynorm

SHAPE = (6, 8, 10, 12)
NORMS = ["batch_train", "batch_eval", "layer_last", "layer_sample", "rms_last", "instance", "group"]
DTYPES = [np.float64, np.float32, np.float16, bfloat16]
RESULTS = ["y", "grad_input", "grad_weight", "grad_bias"]


def by_torch(name, *arrays):
    """y and the gradients, in float64."""
    dtype = arrays[0].dtype
    x, weight, bias, grad_output = (torch.from_numpy(array.astype(np.float64)) for array in arrays)
    leaves = x, weight, bias = [leaf.requires_grad_() for leaf in (x, weight, bias)]
    kept = dtype if dtype.itemsize > 2 else np.float32  # as the running statistics of cases.py
    mean, var = (np.linspace(*ends, x.shape[1]).astype(kept).astype(np.float64) for ends in ((-1, 4), (0.5, 2)))
    eps = np.finfo(np.float64 if dtype == np.float64 else np.float32).eps
    y = {
        "batch_train": lambda: functional.batch_norm(x, None, None, weight, bias, True),
        "batch_eval": lambda: functional.batch_norm(x, torch.from_numpy(mean), torch.from_numpy(var), weight, bias),
        "layer_last": lambda: functional.layer_norm(x, x.shape[-1:], weight, bias),
        "layer_sample": lambda: functional.layer_norm(x, x.shape[1:], weight, bias),
        "rms_last": lambda: functional.rms_norm(x, x.shape[-1:], weight, float(eps)),
        "instance": lambda: functional.instance_norm(x, None, None, weight, bias),
        "group": lambda: functional.group_norm(x, 4, weight, bias),
    }[name]()
    y.backward(grad_output)
    return [y.detach(), *(leaf.grad for leaf in leaves)]


def by_anynorm(norm, x, weight, bias, grad_output):
    gradients = norm.call(cases.Backward(anynorm, grad_output), x, weight, bias)
    return [norm.call(anynorm, x, weight, bias), *gradients]


def differences():
    """{(norm, dtype, layout): [of y, of grad_input, of grad_weight, of grad_bias]}."""
    result = {}
    for name in NORMS:
        norm = cases.NORM[name]
        for dtype in DTYPES:
            rng = np.random.default_rng(0)
            x = rng.normal(1, 2, SHAPE).astype(dtype)
            grad_output = rng.normal(size=SHAPE).astype(dtype)
            weight, bias = norm.parameters(x)
            expected = by_torch(name, x, weight, bias, grad_output)
            for layout in cases.OUTPUT_LAYOUTS:
                found = by_anynorm(norm, layout.place(x), weight, bias, layout.place(grad_output))
                result[name, np.dtype(dtype).name, layout.name] = [
                    abs(ours.astype(np.float64) - theirs.numpy()).max() / abs(theirs.numpy()).max()
                    for ours, theirs in zip(found, expected, strict=True)
                    if ours is not None and theirs is not None
                ]
    return result


def table(title, key, errors):
    names = [np.dtype(dtype).name for dtype in DTYPES]
    worst = defaultdict(lambda: defaultdict(list))
    for at, each in errors.items():
        worst[at[key]][at[1]].append(each)
    print(f"| {title} | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for row, columns in worst.items():
        cells = []
        for name in names:
            length = min(map(len, columns[name]))
            cells.append(" / ".join(f"{max(each[i] for each in columns[name]):.0e}" for i in range(length)))
        print(f"| {row} | {' | '.join(cells)} |")
    print()


if __name__ == "__main__":
    print(f"{' / '.join(RESULTS)}, of the largest magnitude\n")
    errors = differences()
    table("norm, worst of all layouts", 0, errors)
    table("layout, worst of all norms", 2, errors)
