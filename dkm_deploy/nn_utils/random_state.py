"""Every random state that a training step may draw from: take it and put it back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

Snapshot = dict[str, Any]
"""Tensors and plain values only, so that it goes into a checkpoint."""


def snapshot(generators: Sequence[torch.Generator] = ()) -> Snapshot:
    """The states of torch (all devices in use), numpy, Python, and of ``generators``."""
    # A user's augmentation may draw from numpy's global state, so it is part of the run.
    _, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    state: Snapshot = {
        "torch": torch.get_rng_state(),
        "numpy": (torch.from_numpy(np.asarray(keys, np.int64)), *rest),
        "python": random.getstate(),
        "generators": [generator.get_state() for generator in generators],
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore(state: Snapshot, generators: Sequence[torch.Generator] = ()) -> None:
    """Put a snapshot back; ``generators`` are as many as it was taken with."""
    torch.set_rng_state(state["torch"])
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])
    for generator, one in zip(generators, state["generators"], strict=True):
        generator.set_state(one)
    if "cuda" in state:
        for device, one in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(one, device)
    if "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def generators_of(data: object) -> list[torch.Generator]:
    """The generators of its own that a DataLoader, or its sampler, shuffles with."""
    batches = getattr(data, "batch_sampler", None)
    owners = (data, getattr(data, "sampler", None), getattr(batches, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    own = {id(one): one for one in found if isinstance(one, torch.Generator)}
    return list(own.values())
