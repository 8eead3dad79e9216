# SPDX-License-Identifier: Apache-2.0
"""The list of cases that both benchmarks read: what a line means, how it is resized, and what it must move."""

import pytest

from anynorm.__main__ import main
from anynorm.bench.arena import Arena
from anynorm.bench.shapes import Resize, one_of_each, read_case, read_cases


def test_a_quick_run_has_every_kind_of_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    cases = read_cases(resize=Resize(max_bytes=1 << 20))
    quick = one_of_each(cases)
    assert len(quick) < len(cases)
    assert {(case.section, case.kind) for case in quick} == {(case.section, case.kind) for case in cases}
    assert main(["bench", "--quick", "--list"]) == 0
    assert capsys.readouterr().out.split() == [case.listed for case in quick]


@pytest.mark.parametrize(
    "resize, shape, expected",
    [
        (Resize(), [5, 7], (5, 7)),
        (Resize(max_length=6), [5, 7], (5, 6)),
        (Resize(min_bytes=100), [5, 7], (5, 7)),
        (Resize(min_bytes=300), [5, 7], (15, 7)),
        (Resize(max_bytes=100), [5, 7], (3, 7)),
        (Resize(max_bytes=10), [5, 7], (1, 7)),
    ],
)
def test_resize(resize: Resize, shape: list[int], expected: tuple[int, ...]) -> None:
    assert resize(shape, 4) == expected


@pytest.mark.parametrize(
    "line, memory, strides",
    [
        ("layer_norm f32 3x5", (3, 5), (20, 4)),
        ("layer_norm f32 3x5 order=F", (5, 3), (4, 12)),
        ("layer_norm f32 3x5 step=2", (3, 10), (40, 8)),
        ("moments f64 2x3x5 axis=1 order=F", (5, 3, 2), (8, 16, 48)),
        ("moments f16 2x3x5 axis=1 step=3", (2, 3, 15), (90, 30, 6)),
        ("layer_norm_backward f32 3x5 step=2", (3, 10), (40, 8)),
        ("rms_norm f32 3x5 residual=1 order=F", (5, 3), (4, 12)),
    ],
)
def test_views(line: str, memory: tuple[int, ...], strides: tuple[int, ...]) -> None:
    case = read_case(line, "views", Resize())
    arena = Arena(case)
    assert arena.x.shape == arena.y.shape == case.shape
    assert arena.x.strides == arena.y.strides == strides
    touched = arena.read if case.kind == "moments" else [*arena.read, *arena.written]
    assert {array.shape for array in touched} == {memory}
    assert all(array.flags.c_contiguous for array in touched)
    assert case.bytes == sum(array.nbytes for array in touched)
    assert case.name.endswith("".join(f"/{word}" for word in line.split()[3:]))


@pytest.mark.parametrize(
    "line, expected",
    [
        ("moments f32 3x5", 60),
        ("moments f32 3x5 axis=0 labels=2", 84),
        ("normalize f32 3x5 axis=0 labels=2", 144),
        ("normalize f32 3x5 axis=0 segments=2", 120),
        ("moments f32 3x5 axis=0 where=rows", 63),
        ("normalize f32 3x5 axis=0 where=elements", 135),
        ("normalize f32 3x5x2 axis=0,1 where=padding", 255),
        ("layer_norm f32 3x5", 120),
        ("layer_norm f32 3x5 result=i8", 75),
        ("layer_norm f32 3x5 residual=1", 240),
        ("layer_norm_backward bf16 3x5", 90),
    ],
)
def test_bytes_that_must_move(line: str, expected: int) -> None:
    assert read_case(line, "", Resize()).bytes == expected


def test_gaps_count_as_memory() -> None:
    assert read_case("layer_norm f32 5x7 step=2", "", Resize(min_bytes=300)).shape == (10, 7)
    assert read_case("layer_norm f32 5x7 step=2", "", Resize(max_bytes=140)).shape == (2, 7)
