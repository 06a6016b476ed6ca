"""Import once what every model needs; its process is forked from one that has imported this.

A tiny model is converted too, since most of the libraries' code is imported on the way. Nothing is
run and nothing is written for Core AI, for the threads of a runtime do not survive a fork.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

import dkm_deploy as dkm
from benchmarks.zoo.image_models import declare_torchvision_operations
from benchmarks.zoo.models import is_missing

warnings.simplefilter("ignore")
declare_torchvision_operations()
for _package in ("timm", "torchvision", "transformers", "coreai_torch"):
    if not is_missing(_package):
        __import__(_package)
if not is_missing("coreai_torch"):
    import converters.coreai.write  # noqa: F401
with tempfile.TemporaryDirectory() as _folder:
    _frozen = dkm.palettize(nn.Linear(16, 16), 4)
    for _target in ("onnx", "mlpackage"):
        dkm.convert(_frozen, torch.ones(1, 16), Path(_folder) / f"m.{_target}", try_file=False)
