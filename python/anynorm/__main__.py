# SPDX-License-Identifier: Apache-2.0
"""``python -m anynorm``: look at this install, check it, measure it, find its C++ parts; normalize files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import anynorm
from anynorm import _info, _selftest
from anynorm.bench import cli as bench
from anynorm.stream import command as stream


def _directories() -> dict[str, Path]:
    # Not relative to this file: an editable install keeps it in the source tree, where nothing is installed.
    root = Path(anynorm._core.__file__).resolve().parent
    return {
        "cmakedir": root / "lib" / "cmake" / "anynorm",
        "includes": root / "include",
        "pkgconfigdir": root / "lib" / "pkgconfig",
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m anynorm", description=(__doc__ or "").replace("``", ""))
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument("--version", action="version", version=anynorm.__version__)
    wanted.add_argument("--cmakedir", action="store_true", help="print the directory for -Danynorm_DIR=")
    wanted.add_argument("--includes", action="store_true", help="print the compiler flag for the C++ headers")
    wanted.add_argument("--pkgconfigdir", action="store_true", help="print the directory for PKG_CONFIG_PATH")
    commands = parser.add_subparsers(title="commands", metavar="command")
    for name, add_arguments, run, text in (
        ("info", _info.add_arguments, _info.run, "print version, instruction sets, threads, caches, how it was built"),
        ("selftest", _selftest.add_arguments, _selftest.run, "check this install on this CPU, in seconds"),
        ("bench", bench.add_arguments, bench.run, "measure anynorm beside its peers that are installed"),
        ("normalize", stream.add_normalize_arguments, stream.run_normalize, "normalize a .npy file larger than memory"),
        ("moments", stream.add_moments_arguments, stream.run_moments, "sum the statistics of one, to normalize others"),
    ):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        add_arguments(command)
        command.set_defaults(run=run, command=name)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for; the result is the exit status."""
    parser = _parser()
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(words)
    options.words = words[1:]
    if "run" in options:
        if options.run is not _info.run:
            try:
                anynorm.active_isa()
            except ValueError as error:  # a wrong ANYNORM_ISA; info says so itself
                parser.exit(1, f"{error}\n")
        status: int = options.run(options)
        return status
    for name, path in _directories().items():
        if getattr(options, name):
            if not path.is_dir():
                parser.exit(1, f"anynorm: expected the C++ parts in {path}, which does not exist\n")
            print(f"-I{path}" if name == "includes" else path)
            return 0
    parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
