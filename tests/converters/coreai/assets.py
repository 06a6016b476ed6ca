"""What tests of the Core AI target share."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from dkm_deploy.runtimes.core_ai.runtime import runtime

EXTRA = 'needs the extra: pip install "dkm-deploy[coreai]"'


def extra() -> None:
    """Skip the module that calls this where the extra is not installed."""
    pytest.importorskip("coreai_torch", reason=EXTRA, exc_type=ImportError)


def outputs(path, *inputs) -> dict[str, torch.Tensor]:
    """What Apple's runtime gives, by name."""
    session = runtime.load(Path(path))
    arrays = {n: tensor.numpy() for n, tensor in zip(session.input_shapes, inputs, strict=True)}
    return {name: torch.tensor(array) for name, array in session.run(arrays).items()}


def output(path, *inputs) -> torch.Tensor:
    """The only output."""
    (found,) = outputs(path, *inputs).values()
    return found


def relative_error(actual, expected) -> float:
    """Largest difference over the largest value."""
    expected = expected.detach()
    return float((actual - expected).abs().max() / expected.abs().max())


def rehashed(path: Path, program: bytes) -> None:
    """Put another program into an asset, with the digest that belongs to it."""
    (path / "main.mlirb").write_bytes(program)
    (path / "main.hash").write_bytes(hashlib.sha256(program).digest())
