"""What tests of the Core AI target share."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from dkm_deploy.runtimes.core_ai import runtime

EXTRA = 'needs the extra: pip install "dkm-deploy[coreai]"'


def extra() -> None:
    """Skip the module that calls this where the extra is not installed."""
    pytest.importorskip("coreai_torch", reason=EXTRA, exc_type=ImportError)


def output(path, *inputs, **named) -> torch.Tensor:
    """What Apple's runtime gives for the only output."""
    session = runtime.load(Path(path))
    arrays = dict(zip(session.input_shapes, inputs, strict=False)) | named
    (found,) = session.run({name: tensor.numpy() for name, tensor in arrays.items()}).values()
    return torch.tensor(found)


def relative_error(actual, expected) -> float:
    """Largest difference over the largest value."""
    expected = expected.detach()
    return float((actual - expected).abs().max() / expected.abs().max())


def rehashed(path: Path, program: bytes) -> None:
    """Put another program into an asset, with the digest that belongs to it."""
    (path / "main.mlirb").write_bytes(program)
    (path / "main.hash").write_bytes(hashlib.sha256(program).digest())
