"""Random numbers of the documented distributions.

They come from torch's generator, so no seed gives the numbers that Core ML gives. The same seed
gives the same numbers in every run; without a seed (-1) each run has others.
"""

import torch
from torch import Tensor

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.limits import check_elements
from dkm_deploy.runtimes.mlprogram.kernels.registry import Ints, kernel

_NO_SEED = -1


@kernel("random_uniform", varies=True)
def _random_uniform(shape: Ints, low: float = 0.0, high: float = 1.0, seed: int = -1) -> Tensor:
    check_elements(shape)
    return low + (high - low) * torch.rand(shape, generator=_generator(seed))


@kernel("random_normal", varies=True)
def _random_normal(shape: Ints, mean: float = 0.0, stddev: float = 1.0, seed: int = -1) -> Tensor:
    check_elements(shape)
    return mean + stddev * torch.randn(shape, generator=_generator(seed))


@kernel("random_bernoulli", varies=True)
def _random_bernoulli(shape: Ints, prob: float = 0.5, seed: int = -1) -> Tensor:
    check_elements(shape)
    return (torch.rand(shape, generator=_generator(seed)) < prob).float()


@kernel("random_categorical", varies=True)
def _random_categorical(x: Tensor, mode: str = "logits", size: int = 1, seed: int = -1) -> Tensor:
    if mode not in ("logits", "probs"):
        raise DkmError(f"mode {mode!r} is unknown; known: logits, probs")
    check_elements([*x.shape[:-1], size])
    weights = x.softmax(-1) if mode == "logits" else x
    rows = weights.reshape(-1, x.shape[-1])
    drawn = torch.multinomial(rows, size, replacement=True, generator=_generator(seed))
    return drawn.reshape(*x.shape[:-1], size).float()


def _generator(seed: int) -> torch.Generator | None:
    return None if seed == _NO_SEED else torch.Generator().manual_seed(seed)
