"""dkm-deploy: cluster a model's weights, write them to Core ML and ONNX, prove the files right.

Each public name is imported at its first use (PEP 562), and torch with it: the command line starts
at once, and a program pays for what it uses. A program of ``torch.export`` that holds
``dkm::lut_to_dense`` needs ``import dkm_deploy.ops`` before it is loaded.

The examples in docstrings need these imports::

    import numpy as np
    import torch
    from torch import nn

    import dkm_deploy as dkm

Some read files of a small model: ``model.safetensors``, ``model.onnx`` and ``model.mlpackage`` are
``nn.Linear(8, 4)`` with 2-bit palettes, from ``dkm.save`` and ``dkm.convert``; ``golden`` is their
golden bundle, and ``device`` holds what a device computed for it. ``dense.onnx`` is a plain model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dkm_deploy._version import __version__ as __version__

if TYPE_CHECKING:
    from dkm_deploy.conversion.convert import Artifact, convert
    from dkm_deploy.conversion.fold_batch_norm import fold_batch_norm
    from dkm_deploy.conversion.registry import read_palettes, size_breakdown
    from dkm_deploy.errors import DkmError
    from dkm_deploy.formats.ledger import Ledger
    from dkm_deploy.model.checkpoint import load, save
    from dkm_deploy.model.dense import dense
    from dkm_deploy.model.palettized import palettes
    from dkm_deploy.model.steps import Steps
    from dkm_deploy.palette import Palette
    from dkm_deploy.palette_spec import PaletteSpec
    from dkm_deploy.planning.decision import Plan
    from dkm_deploy.planning.plan import plan
    from dkm_deploy.post_training.bin_quant import BinQuant
    from dkm_deploy.post_training.methods import KMeans, SensitiveKMeans
    from dkm_deploy.post_training.output_correction.correct import Correction, correct_outputs
    from dkm_deploy.post_training.palettize import palettize
    from dkm_deploy.post_training.palettize_file import PalettizedFile, palettize_file
    from dkm_deploy.post_training.quantize_luts import quantize_luts
    from dkm_deploy.recipe import Recipe
    from dkm_deploy.rule import Rule
    from dkm_deploy.runtimes.mlprogram.evaluator import MLProgramEvaluator
    from dkm_deploy.runtimes.mlprogram.numerics import Overflow
    from dkm_deploy.schedule import Schedule
    from dkm_deploy.training.ewgs_scaling import update_ewgs_scaling
    from dkm_deploy.training.freeze import freeze, soft_copy
    from dkm_deploy.training.loop.fit import FitResult, fit
    from dkm_deploy.training.methods.dkm import DKM
    from dkm_deploy.training.methods.ewgs import EWGS
    from dkm_deploy.training.methods.gwk import GWK
    from dkm_deploy.training.methods.hard_ste import HardSTE
    from dkm_deploy.training.prepare import prepare, step
    from dkm_deploy.training.range_loss import RangeLoss
    from dkm_deploy.training.status import status
    from dkm_deploy.validation.golden.write import write_golden
    from dkm_deploy.validation.limits import Limits, OutputLimits
    from dkm_deploy.validation.measures.cost import CostOptions
    from dkm_deploy.validation.report import Report
    from dkm_deploy.validation.size_budget import Budget
    from dkm_deploy.validation.validate import validate, validate_device_outputs, validate_golden

__all__ = [
    # What to do with which weight.
    "PaletteSpec",
    "Recipe",
    "Rule",
    "Schedule",
    "Plan",
    "plan",
    # Train with palettes, or make them afterwards.
    "DKM",
    "BinQuant",
    "Correction",
    "EWGS",
    "GWK",
    "HardSTE",
    "KMeans",
    "RangeLoss",
    "SensitiveKMeans",
    "FitResult",
    "step",
    "correct_outputs",
    "update_ewgs_scaling",
    "fit",
    "fold_batch_norm",
    "freeze",
    "palettize",
    "prepare",
    "quantize_luts",
    "soft_copy",
    "status",
    # What comes out, and its checkpoint.
    "Palette",
    "dense",
    "load",
    "palettes",
    "save",
    # Files.
    "Artifact",
    "Ledger",
    "PalettizedFile",
    "convert",
    "size_breakdown",
    "palettize_file",
    "read_palettes",
    # Run Core ML packages on any OS, and see where fp16 is not enough.
    "MLProgramEvaluator",
    "Overflow",
    # Weigh them.
    "Budget",
    "CostOptions",
    "Limits",
    "OutputLimits",
    "Report",
    "Steps",
    "validate_device_outputs",
    "validate_golden",
    "validate",
    "write_golden",
    # What is raised for wrong use and bad input.
    "DkmError",
]

_MODULES = {
    "Artifact": "dkm_deploy.conversion.convert",
    "BinQuant": "dkm_deploy.post_training.bin_quant",
    "Budget": "dkm_deploy.validation.size_budget",
    "Correction": "dkm_deploy.post_training.output_correction.correct",
    "CostOptions": "dkm_deploy.validation.measures.cost",
    "DKM": "dkm_deploy.training.methods.dkm",
    "DkmError": "dkm_deploy.errors",
    "EWGS": "dkm_deploy.training.methods.ewgs",
    "MLProgramEvaluator": "dkm_deploy.runtimes.mlprogram.evaluator",
    "FitResult": "dkm_deploy.training.loop.fit",
    "GWK": "dkm_deploy.training.methods.gwk",
    "HardSTE": "dkm_deploy.training.methods.hard_ste",
    "KMeans": "dkm_deploy.post_training.methods",
    "Ledger": "dkm_deploy.formats.ledger",
    "Limits": "dkm_deploy.validation.limits",
    "OutputLimits": "dkm_deploy.validation.limits",
    "Overflow": "dkm_deploy.runtimes.mlprogram.numerics",
    "Palette": "dkm_deploy.palette",
    "PaletteSpec": "dkm_deploy.palette_spec",
    "Plan": "dkm_deploy.planning.decision",
    "RangeLoss": "dkm_deploy.training.range_loss",
    "Recipe": "dkm_deploy.recipe",
    "Report": "dkm_deploy.validation.report",
    "PalettizedFile": "dkm_deploy.post_training.palettize_file",
    "Rule": "dkm_deploy.rule",
    "Schedule": "dkm_deploy.schedule",
    "SensitiveKMeans": "dkm_deploy.post_training.methods",
    "Steps": "dkm_deploy.model.steps",
    "step": "dkm_deploy.training.prepare",
    "convert": "dkm_deploy.conversion.convert",
    "correct_outputs": "dkm_deploy.post_training.output_correction.correct",
    "dense": "dkm_deploy.model.dense",
    "update_ewgs_scaling": "dkm_deploy.training.ewgs_scaling",
    "fit": "dkm_deploy.training.loop.fit",
    "fold_batch_norm": "dkm_deploy.conversion.fold_batch_norm",
    "freeze": "dkm_deploy.training.freeze",
    "validate_device_outputs": "dkm_deploy.validation.validate",
    "size_breakdown": "dkm_deploy.conversion.registry",
    "load": "dkm_deploy.model.checkpoint",
    "palettes": "dkm_deploy.model.palettized",
    "palettize": "dkm_deploy.post_training.palettize",
    "palettize_file": "dkm_deploy.post_training.palettize_file",
    "plan": "dkm_deploy.planning.plan",
    "prepare": "dkm_deploy.training.prepare",
    "read_palettes": "dkm_deploy.conversion.registry",
    "validate_golden": "dkm_deploy.validation.validate",
    "quantize_luts": "dkm_deploy.post_training.quantize_luts",
    "save": "dkm_deploy.model.checkpoint",
    "soft_copy": "dkm_deploy.training.freeze",
    "status": "dkm_deploy.training.status",
    "validate": "dkm_deploy.validation.validate",
    "write_golden": "dkm_deploy.validation.golden.write",
}
"""Where each public name is defined."""


if not TYPE_CHECKING:  # with it, type checkers would let any name pass

    def __getattr__(name: str) -> Any:
        """A public name, from its module."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value  # the next use does not come here
        return value


def __dir__() -> list[str]:
    """What a user may call, without the modules that it comes from."""
    return __all__
