"""Dense packages to palettize, built by coremltools, and what their weights are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dkm_deploy as dkm
from tests.formats.mlpackage.packages import mb, save, types

FLOATS: dict[Any, Any] = {np.float32: types.fp32, np.float16: types.fp16}


def values(*shape: int, seed: int = 0, dtype: Any = np.float32) -> NDArray[Any]:
    """Weights like those of a layer."""
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(dtype)


def two_layers(path: Path, target: str, dtype: Any = np.float32) -> Path:
    """``x`` (2, 64) to ``y`` (2, 16), by ``linear``, ``matmul``, and a table that is added."""

    def body(x: Any) -> Any:
        first = mb.linear(
            x=x,
            weight=mb.const(val=values(48, 64, seed=1, dtype=dtype), name="first_weight"),
            bias=mb.const(val=values(48, seed=2, dtype=dtype), name="first_bias"),
        )
        second = mb.const(val=values(48, 16, seed=3, dtype=dtype), name="second_weight")
        table = mb.const(val=values(2, 16, seed=4, dtype=dtype), name="table")
        return mb.add(x=mb.matmul(x=mb.relu(x=first), y=second), y=table, name="y")

    return save(path, body, (2, 64), target=target, dtype=FLOATS[dtype])


def two_layers_of(x: NDArray[Any], first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """The same in numpy, with other weights; computed in float64."""
    hidden = np.maximum(x.astype(np.float64) @ first.T.astype(np.float64) + values(48, seed=2), 0)
    made: NDArray[Any] = hidden @ second.astype(np.float64) + values(2, 16, seed=4)
    return made


def one_layer(path: Path, build: Any, shape: tuple[int, ...], target: str = "iOS18") -> Path:
    """``x`` to ``y``, by what ``build`` makes of it."""
    return save(path, lambda x: mb.identity(x=build(x), name="y"), shape, target=target)


def files(package: Path) -> dict[str, bytes]:
    """The bytes of every file of a package by its path in it."""
    return {
        part.relative_to(package).as_posix(): part.read_bytes()
        for part in sorted(package.rglob("*"))
        if part.is_file()
    }


def run(package: Path, *xs: NDArray[Any], function: str | None = None) -> NDArray[Any]:
    """The output ``y``."""
    names = ("x", "z")[: len(xs)]
    session = dkm.MLProgramEvaluator(package, function=function)
    return session.run(dict(zip(names, xs, strict=True)))["y"]
