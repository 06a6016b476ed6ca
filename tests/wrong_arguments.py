"""What is right to give to every public function and record, and what is not."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import dkm_deploy as dkm
from tests.models import MIXED, images, small_net

_NAN = float("nan")
MODELS = [None, 3, "net.pt", nn.Linear, small_net().state_dict(), [small_net()]]
MODELS += [torch.jit.ScriptModule()]
RECIPES = [None, True, 2.5, "recipe.toml", {"bits": 2}, 9, 0, [dkm.PaletteSpec(2)]]
PATHS = [None, 3, b"m.onnx", "", "m\0.onnx", ["m.onnx"], 2.5]
FILES = [None, 3, [None], "gone.onnx", ["gone.onnx"], [b"m.onnx"]]
INPUTS = [None, 3, "x", object(), {3: torch.zeros(1)}, {"y": torch.zeros(1, 3, 8, 8)}]
TARGETS = [None, 3, "tflite", ["onnx", "tflite"], [3], "onnx:17", "coreml:iOS99"]
METHODS = [None, 3, "kmedoids", dkm.KMeans, []]
COUNTS = [0, -1, 2.5, "3", True, _NAN, None]
NUMBERS = [-1, "1e-3", True, _NAN, [1], None]
SIGNED = ["1e-3", True, _NAN, [1]]
BYTES = [None, True, -1, 0, 2.5, "lots", "-3MB", [3], _NAN]
LABELS = ["cat", 3, object(), torch.zeros(3)]
CALIBRATION = [3, "data", [], [None], [3], nn.Linear(1, 1), {"y": torch.zeros(4)}, torch.zeros(())]
FUNCTIONS = [3, "accuracy", []]
CANDIDATES = [None, [], ["x"], 9]
ASKED = {
    "metric": FUNCTIONS,
    "limits": [3, "1e-3", {"max_bytes": 3}, dkm.Limits],
    "budget": [3, "1MB"],
    "cost": [3, True],
    "require": [3, None, "speed", [3]],
}
PLAN = {
    "model": MODELS,
    "budget": BYTES,
    "targets": TARGETS[1:],
    "calibration": [None, *CALIBRATION],
    "metric": FUNCTIONS,
    "method": METHODS,
    "candidates": CANDIDATES,
    "cache": [3, []],
    "example_inputs": INPUTS[1:],
}
CORRECT = {"frozen": MODELS, "original": MODELS, "calibration": [None, *CALIBRATION]}
# By public function, what each of its arguments cannot be.
CALLS: dict[str, dict[str, list[Any]]] = {
    "plan": PLAN,
    "step": {"model": MODELS, "steps": COUNTS},
    "correct_outputs": CORRECT,
    "update_ewgs_scaling": {"model": MODELS, "loss": [None, 3], "seed": [None, "x", 2.5]},
    "fit": {
        "model": MODELS,
        "data": [None, 3, [], [3], [None], "data"],
        "epochs": COUNTS,
        "optimizer": [None, 3, torch.optim.SGD],
        "scheduler": [3],
        "loss": FUNCTIONS,
        "teacher": MODELS[1:],
        "temperature": [0, *NUMBERS],
        "teacher_weight": [2, *NUMBERS],
        "class_dim": ["x", None, 2.5, 99],
        "clip_norm": [0, *NUMBERS[:-1]],
        "checkpoint": PATHS[1:],
        "every": COUNTS,
        "after_step": FUNCTIONS,
    },
    "fold_batch_norm": {"model": MODELS, "example_inputs": INPUTS},
    "freeze": {"model": MODELS},
    "palettize": {
        "model": MODELS,
        "recipe": RECIPES,
        "method": METHODS,
        "targets": TARGETS,
        "calibration": [torch.zeros(3)],
    },
    "prepare": {"model": MODELS, "recipe": RECIPES, "method": METHODS, "targets": TARGETS},
    "dense": {"frozen": MODELS},
    "quantize_luts": {"frozen": MODELS},
    "soft_copy": {"model": MODELS},
    "status": {"model": MODELS},
    "load": {"path": ["gone.safetensors", *PATHS], "model": MODELS},
    "palettes": {"frozen": MODELS},
    "save": {"frozen": MODELS, "path": PATHS},
    "convert": {
        "frozen": MODELS,
        "example_inputs": INPUTS,
        "path": PATHS,
        "try_file": [3, "no", None],
    },
    "size_breakdown": {"path": ["gone.onnx", *PATHS]},
    "palettize_file": {"path": ["gone.onnx", *PATHS], "out": PATHS, "recipe": RECIPES},
    "read_palettes": {"path": ["gone.onnx", *PATHS]},
    "validate_device_outputs": {"folders": FILES, "golden": ["gone", *PATHS], "metric": FUNCTIONS},
    "validate_golden": {"files": FILES, "golden": ["gone", *PATHS], **ASKED},
    "validate": {
        "files": FILES,
        "reference": MODELS,
        "inputs": INPUTS,
        "labels": LABELS,
        **ASKED,
        "original": [3, b"x", nn.Linear, {}, "gone.onnx"],
        "interface": [3, "x", {}],
        "also": [3, [], {"a": 3}],
        "function": [3, [], "gone"],
    },
    "write_golden": {
        "folder": PATHS,
        "reference": MODELS,
        "inputs": INPUTS,
        "labels": LABELS,
        "original": MODELS[1:],
        "metric": [3, []],
        "limits": ASKED["limits"],
        "provenance": [3, "x", ["a"]],
        "interface": [3, "x", {}],
    },
}
_SCALING = [-1, "1e-3", True, _NAN, None, float("inf")]
# By public record, what each of its fields cannot be.
RECORDS: dict[str, dict[str, list[Any]]] = {
    "PaletteSpec": {
        "bits": [*COUNTS, 9],
        "cluster_dim": [*COUNTS, 17],
        "axis": [-1, 2.5, "0", True, None, 8],
        "group_size": COUNTS[:-1],
        "per_channel_scale": [None, 1, "x"],
    },
    "Rule": {
        "match": [None, 3],
        "spec": [3.5, "x", []],
        "skip": [1, None],
        "max_elements": COUNTS[:-1],
    },
    "Schedule": {"steps": COUNTS, "end": [-1, 0, *SIGNED], "gap": [-1, 0, *SIGNED]},
    "Recipe": {"default": [3.5, "x", {}], "rules": [3, "x", [3], None], "schedule": [3, "x"]},
    "DKM": {
        "temperature": [-1, 0, *SIGNED],
        "tau_absolute": [-1, 0, *SIGNED],
        "iterations": COUNTS,
        "gradient": [None, 3, "x", []],
    },
    "HardSTE": {"scaling": _SCALING},
    "EWGS": {"scaling": _SCALING},
    "GWK": {"scaling": _SCALING, "every": COUNTS, "gradients": [None, 3, "x", []]},
    "BinQuant": {"tolerance": NUMBERS, "evaluations": COUNTS[1:], "metric": FUNCTIONS},
    "KMeans": {},
    "SensitiveKMeans": {"loss": FUNCTIONS},
    "RangeLoss": {"model": MODELS, "recipe": RECIPES, "kind": ["x", None, 3]},
    "CostOptions": {
        "dense": [3, b"x"],
        "threads": COUNTS,
        "rounds": COUNTS,
        "runs": [4, *COUNTS],
        "timeout_s": [0, *NUMBERS],
    },
    "Limits": {one.name: SIGNED for one in fields(dkm.Limits) if one.name != "outputs"}
    | {"outputs": [3, {"a": 3}, {3: dkm.OutputLimits()}, [1]]},
    "OutputLimits": {one.name: SIGNED for one in fields(dkm.OutputLimits)},
    "Steps": {"steps": [None, 3, [], [3]]},
    "Budget": {"files": [None, 3, ["x"]]},
    "Palette": {
        "indices": [None, 3, "x", [[0]]],
        "lut": [None, 3, "x"],
        "axis": ["x", None, 2.5, -1],
        "bits": ["x", None, 2.5, 9],
    },
    "MLProgramEvaluator": {"path": ["gone.mlpackage", *PATHS], "numerics": ["x", 3, None]},
}
# What functions give back, and the error itself.
MADE_BY_OTHERS = {
    *("Artifact", "Correction", "DkmError", "FitResult", "Ledger", "Overflow", "Plan", "Report"),
    "PalettizedFile",
}


@dataclass(frozen=True)
class Right:
    """What every function can take, with models and files that all share."""

    folder: Path
    shared: dict[str, Any]

    def of(self, name: str) -> dict[str, Any]:
        """Arguments with which ``name`` would go well, or refuse another one of."""
        out, at = self.folder / "out", self.shared
        prepared = at["prepared"]
        planned = {"budget": "3KB", "targets": "onnx", "calibration": at["inputs"]}
        corrected = {key: at[key] for key in ("frozen", "original")} | {"calibration": at["inputs"]}
        run = {"reference": at["frozen"], "inputs": at["inputs"]}
        made: dict[str, dict[str, Any]] = {
            "plan": {"model": at["original"], **planned},
            "step": {"model": prepared},
            "correct_outputs": corrected,
            "update_ewgs_scaling": {"model": prepared, "loss": lambda: torch.zeros(())},
            "fold_batch_norm": {"model": at["original"], "example_inputs": at["inputs"]},
            "palettize": {"model": at["original"], "recipe": MIXED},
            "prepare": {"model": at["original"], "recipe": MIXED},
            "load": {"path": at["checkpoint"], "model": at["original"]},
            "save": {"frozen": at["frozen"], "path": out},
            "convert": {
                "frozen": at["frozen"],
                "example_inputs": at["inputs"],
                "path": f"{out}.onnx",
            },
            "palettize_file": {"path": at["file"], "out": f"{out}.onnx", "recipe": 2},
            "validate_device_outputs": {"folders": at["golden"], "golden": at["golden"]},
            "validate_golden": {"files": at["file"], "golden": at["golden"]},
            "validate": {"files": at["file"], **run},
            "write_golden": {"folder": out, **run},
            "Rule": {"skip": True},
            "Schedule": {"steps": 3, "end": 0.1},
            "Palette": {"indices": np.zeros((2, 2), np.uint8), "lut": np.zeros((1, 1, 2, 1), "f4")},
            "MLProgramEvaluator": {"path": at["file"]},
            "RangeLoss": {"model": at["original"], "recipe": MIXED},
        }
        if name == "fit":
            batch = (at["inputs"], torch.zeros(len(at["inputs"]), dtype=torch.int64))
            optimizer = torch.optim.SGD(prepared.parameters(), 1e-3)
            made["fit"] = {"model": prepared, "data": [batch], "epochs": 1, "optimizer": optimizer}
        return made.get(name, {})


def right_arguments(folder: Path) -> Right:
    """Models and files that are shared by all."""
    frozen = dkm.palettize(small_net(), MIXED)
    file = dkm.convert(frozen, images(1), folder / "m.onnx").path
    dkm.write_golden(folder / "golden", reference=frozen, inputs=images(4))
    dkm.save(frozen, folder / "m.safetensors")
    shared: dict[str, Any] = {
        "frozen": frozen,
        "original": small_net(),
        "inputs": images(4),
        "file": file,
    }
    return Right(
        folder,
        shared
        | {"golden": folder / "golden", "checkpoint": folder / "m.safetensors"}
        | {"prepared": dkm.prepare(small_net(), 2)},
    )
