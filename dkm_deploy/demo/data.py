"""scikit-learn's handwritten digits with a held-out split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dkm_deploy.errors import DkmError


@dataclass(frozen=True)
class Digits:
    """Images float32 ``(n, 1, 8, 8)`` in 0..1 and labels int64 ``(n,)``."""

    train_images: Tensor
    train_labels: Tensor
    held_out_images: Tensor
    held_out_labels: Tensor


def digits(seed: int) -> Digits:
    """1,797 images, a fifth of each class held out.

    Raises:
        DkmError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise DkmError(
            "the demo's data comes with scikit-learn: pip install 'dkm-deploy[demo]'"
        ) from error
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=seed)
    train, held_out = (
        torch.tensor(part, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16 for part in split[:2]
    )
    return Digits(train, torch.tensor(split[2]), held_out, torch.tensor(split[3]))
