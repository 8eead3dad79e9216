# SPDX-License-Identifier: Apache-2.0
"""Data larger than memory: files, memory maps and chunks, in two passes with constant memory.

>>> import numpy as np
>>> import anynorm
>>> import pathlib, tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     big, out = pathlib.Path(folder, "big.npy"), pathlib.Path(folder, "out.npy")
...     np.save(big, np.array([[1.0, 10.0], [3.0, 30.0]], dtype=np.float32))
...     y = anynorm.stream.normalize(big, 0, out, eps=0)
...     print(y)
[[-1. -1.]
 [ 1.  1.]]

``python -m anynorm normalize big.npy --axis 0 -o out.npy`` does the same from a shell.
"""

from anynorm.stream._functions import moments, normalize, normalize_chunks
from anynorm.stream._statistics_file import load_moments

__all__ = ["load_moments", "moments", "normalize", "normalize_chunks"]
