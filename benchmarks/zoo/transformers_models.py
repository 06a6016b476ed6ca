"""Tiny architectures of transformers, of which ``transformers_models.toml`` has configurations."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.architecture import SAMPLES, Architecture, tokens

_VOCABULARY = 32  # the smallest of all models


def transformers_models() -> list[Architecture]:
    """All of them, by model type."""
    told = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    return [
        Architecture(
            f"transformers/{model_type}",
            f"transformers, {kind['family']}",
            "transformers",
            partial(
                _make,
                model_type,
                kind["model_class"],
                entries({"sizes": kind["sizes"], **extras}, told["sizes"]),
                told["inputs"][kind["inputs"]],
            ),
        )
        for kind in told["kinds"]
        for model_type, extras in kind["models"].items()
    ]


def entries(table: Any, sizes: Mapping[str, Mapping[str, Any]]) -> Any:
    """A table with the shared entries in place of their names, and so are the tables in it.

    Args:
        table: whose entry ``sizes`` names tables of shared entries; its own ones take precedence.
        sizes: the shared entries.
    """
    if not isinstance(table, dict):
        return table
    merged: dict[str, Any] = {}
    for name in table.get("sizes", ()):
        merged |= sizes[name]
    merged |= {key: value for key, value in table.items() if key != "sizes"}
    return {key: entries(value, sizes) for key, value in merged.items()}


def _make(
    model_type: str, model_class: str, config: Mapping[str, Any], inputs: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Tensor]]:
    import transformers

    made = transformers.AutoConfig.for_model(model_type, **config)
    kind = getattr(transformers, model_class)
    model = kind.from_config(made) if model_class.startswith("Auto") else kind(made)
    return model.eval(), {name: _input(shape) for name, shape in inputs.items()}


def _input(shape: Any) -> Tensor:
    """Samples of an input: noise of a shape, tokens or ones."""
    if isinstance(shape, list):
        return torch.randn(SAMPLES, *shape)
    if "tokens" in shape:
        return tokens(_VOCABULARY, shape["tokens"])
    return torch.ones(SAMPLES, shape["ones"], dtype=torch.int64)
