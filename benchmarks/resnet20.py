"""ResNet-20 on CIFAR-10: the model, its weights and the data of ``--data``.

Architecture as in He et al. 2016, section 4.2, with the parameter-free shortcut (option A).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from dkm_deploy.errors import MissingFileError

CALIBRATION_BATCHES, _BATCH = 16, 16
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, planes_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes_in, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.pad = planes // 4 if stride != 1 else 0

    def forward(self, x: Tensor) -> Tensor:
        """``(n, planes_in, h, w)`` to ``(n, planes, h / stride, w / stride)``."""
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.pad:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return functional.relu(out + x)


class ResNet20(nn.Module):
    """``(n, 3, 32, 32)`` to ``(n, 10)``; 269,722 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(n, 10)``."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        scores: Tensor = self.linear(x.mean((2, 3)))
        return scores


@dataclass(frozen=True)
class Cifar:
    """Images uint8 ``(n, 3, 32, 32)`` and labels int64 ``(n,)``."""

    images: Tensor
    labels: Tensor

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised float32 images and labels."""
        return normalised(self.images[index]), self.labels[index]

    def drawn(self, seed: int, count: int) -> Tensor:
        """Indices ``(count,)`` of images, each at most once."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(len(self.labels), generator=generator)[:count]

    def calibration(self, seed: int) -> list[tuple[Tensor, Tensor]]:
        """256 images and their labels, drawn by the seed, in batches."""
        drawn = self.drawn(seed, CALIBRATION_BATCHES * _BATCH)
        return [self.batch(index) for index in torch.split(drawn, _BATCH)]


def pretrained(data: Path) -> ResNet20:
    """The fp32 model with its trained weights, in eval mode."""
    model = ResNet20()
    model.load_state_dict(load_file(_there(data / "resnet_cifar" / "resnet20.safetensors")))
    return model.eval()


def cifar(data: Path, split: str) -> Cifar:
    """The "train" or "test" images."""
    folder = data / "cifar10"
    sheets = sorted(_there(folder).glob(f"{split}_*.webp"))
    images = np.concatenate([_sheet(path) for path in sheets])
    labels = np.load(folder / f"{split}_labels.npy").astype(np.int64)
    return Cifar(torch.from_numpy(images), torch.from_numpy(labels))


def normalised(images: Tensor) -> Tensor:
    """Uint8 images as the network takes them."""
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (_MEAN, _DEVIATION))
    return (images.float() / 255 - mean) / deviation


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image mirrored or not; the batch shifted by up to 4 pixels."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
    down, right = torch.randint(0, 9, (2,), generator=generator).tolist()
    return functional.pad(images, (4, 4, 4, 4))[:, :, down : down + 32, right : right + 32]


@torch.no_grad()
def top1(model: nn.Module, test: Cifar) -> float:
    """Top-1 accuracy in percent."""
    right = 0
    for index in torch.split(torch.arange(len(test.labels)), 500):
        images, labels = test.batch(index)
        right += int((model(images).argmax(1) == labels).sum())
    return 100 * right / len(test.labels)


def _sheet(path: Path) -> np.ndarray:
    """A sheet holds 25 x 40 images of 32 x 32."""
    sheet = np.asarray(Image.open(path).convert("RGB")).reshape(25, 32, 40, 32, 3)
    return sheet.transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32)


def _there(path: Path) -> Path:
    if not path.exists():
        raise MissingFileError(f"{path}: not there; give the data folder with --data")
    return path
