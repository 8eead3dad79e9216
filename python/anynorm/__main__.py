# SPDX-License-Identifier: Apache-2.0
"""``python -m anynorm``: what is installed, and where its C++ parts are."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import anynorm


def _directories() -> dict[str, Path]:
    # Not relative to this file: an editable install keeps it in the source tree, where nothing is installed.
    root = Path(anynorm._core.__file__).resolve().parent
    return {
        "cmakedir": root / "lib" / "cmake" / "anynorm",
        "includes": root / "include",
        "pkgconfigdir": root / "lib" / "pkgconfig",
    }


def _info() -> str:
    return "\n".join(
        (
            f"anynorm      {anynorm.__version__}",
            f"instructions {anynorm.active_isa()} (available: {', '.join(anynorm.available_isas())})",
            f"threads      {anynorm.max_threads()}",
            f"numpy        {np.__version__}",
        )
    )


def main(arguments: list[str] | None = None) -> None:
    """Print what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m anynorm", description=__doc__.replace("``", ""))
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--version", action="version", version=anynorm.__version__)
    wanted.add_argument("--cmakedir", action="store_true", help="print the directory for -Danynorm_DIR=")
    wanted.add_argument("--includes", action="store_true", help="print the compiler flag for the C++ headers")
    wanted.add_argument("--pkgconfigdir", action="store_true", help="print the directory for PKG_CONFIG_PATH")
    wanted.add_argument("command", nargs="?", choices=["info"], help="print version, instruction sets and threads")
    options = parser.parse_args(arguments)
    if options.command:
        print(_info())
        return
    name, path = next((name, path) for name, path in _directories().items() if getattr(options, name))
    if not path.is_dir():
        parser.exit(1, f"anynorm: expected the C++ parts in {path}, which does not exist\n")
    print(f"-I{path}" if name == "includes" else path)


if __name__ == "__main__":
    main()
