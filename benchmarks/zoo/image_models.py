"""Image models of torchvision and timm, of which ``image_models.toml`` has the names and sizes."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.architecture import SAMPLES, Architecture, images

_KEPT: list[Any] = []  # what a library declares goes when it does


def image_models(package: str) -> list[Architecture]:
    """Those of torchvision or timm that classify and segment images, and classify films.

    Detectors of torchvision give boxes whose number is not fixed.
    """
    groups = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))[package]
    return [
        Architecture(f"{package}/{name}", package, package, make)
        for group in groups
        for name, make in _of_group(package, group)
    ]


def declare_torchvision_operations() -> None:
    """Declare what torchvision's C++ library has, where that library does not load.

    PyPI's wheel for Linux needs CUDA, and without these names torchvision does not even import. No
    model here calls them.
    """
    try:
        import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            signature = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(signature)  # type: ignore[no-untyped-call]
        _KEPT.append(library)
    except ImportError:
        return


def _of_group(package: str, group: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    size, frames = group["size"], group.get("frames")
    for name in group.get("names", ()):
        yield name, partial(_by_name, package, name, {}, size, frames)
    for name, options in group.get("smaller", {}).items():
        taken = options.get("img_size", size)
        yield name, partial(_by_name, package, name, options, taken, frames)
    for path, options in group.get("classes", {}).items():
        yield path.rpartition(".")[2], partial(_by_class, package, path, options, size, frames)


def _by_name(
    package: str, name: str, options: Mapping[str, Any], size: int, frames: int | None
) -> tuple[nn.Module, Tensor]:
    if package == "timm":
        make, untrained = import_module("timm").create_model, ["pretrained"]
    else:
        make, untrained = import_module("torchvision").models.get_model, ["weights"]
        if "lab" in name or "raspp" in name:
            untrained.append("weights_backbone")
    return make(name, **dict.fromkeys(untrained), **options).eval(), _inputs(size, frames)


def _by_class(
    package: str, path: str, options: Mapping[str, Any], size: int, frames: int | None
) -> tuple[nn.Module, Tensor]:
    module, _, name = path.rpartition(".")
    kind = getattr(import_module(f"{package}.models.{module}"), name)
    return kind(**options).eval(), _inputs(size, frames)


def _inputs(size: int, frames: int | None) -> Tensor:
    if frames is None:
        return images(size)
    return torch.randn(SAMPLES, 3, frames, size, size)
