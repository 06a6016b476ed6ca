"""A language model of half a billion weights as files: ``python -m benchmarks.language_models``.

Shaped like Qwen2.5 0.5B, random weights, no cache. Palettizing and each format are a process of
their own, one after the other; the model is built in each, so every peak includes its float32
weights. ``--layers 2`` is a quick trial.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from benchmarks.process import cpu, in_process, versions
from dkm_deploy.formats.ledger import size_on_disk

_BITS = 4
_TOKENS = 8
_TARGETS = ("onnx", "mlpackage", "aimodel")


class Decoder(nn.Module):
    """Token ids ``(n, tokens)`` int64 to logits ``(n, tokens, 151936)``."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        from transformers import Qwen2Config, Qwen2ForCausalLM

        config = Qwen2Config(  # huggingface.co/Qwen/Qwen2.5-0.5B/blob/main/config.json
            vocab_size=151936,
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=layers,
            num_attention_heads=14,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            use_cache=False,
        )
        self.model = Qwen2ForCausalLM(config)

    def forward(self, ids: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.model(input_ids=ids).logits
        return logits


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--step", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, folder = arguments.step
        print(json.dumps(_measured(step, Path(folder), arguments.layers)))
        return
    print(f"{cpu()}; {versions('torch', 'transformers', 'coremltools', 'onnxruntime')}\n")
    print("| step | CPU s | peak GB | times the float32 weights | bytes | over the ideal |")
    print("|---|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        for step in ("palettize", *_TARGETS):
            options = ["--layers", str(arguments.layers), "--step", step, folder]
            print(
                _row(step, in_process("benchmarks.language_models", options, threads=1)), flush=True
            )


def _measured(step: str, folder: Path, layers: int) -> dict[str, Any]:
    """CPU seconds, peak and bytes of one step; files stay in ``folder``."""
    torch.manual_seed(0)
    model = Decoder(layers).eval()
    dense = sum(p.numel() * 4 for p in model.parameters())  # the tied one counts once
    checkpoint = folder / "model.safetensors"
    if step == "palettize":
        start = time.process_time()
        frozen = dkm.palettize(model, _BITS)
        seconds = time.process_time() - start
        dkm.save(frozen, checkpoint)
        size = checkpoint.stat().st_size
    else:
        frozen = dkm.load(checkpoint, model)
        path = folder / f"model.{step}"
        start = time.process_time()
        dkm.convert(frozen, torch.arange(_TOKENS)[None], path)
        seconds = time.process_time() - start
        size = size_on_disk(path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    weights = sum(math.prod(p.shape) for p in dkm.palettes(frozen).values())
    return {
        "seconds": seconds,
        "peak": peak,
        "dense": dense,
        "bytes": size,
        "ideal": weights * _BITS // 8,
    }


def _row(step: str, found: dict[str, Any]) -> str:
    over = found["bytes"] / found["ideal"] - 1
    return (
        f"| {step} | {found['seconds']:.0f} | {found['peak'] / 1e9:.1f} "
        f"| {found['peak'] / found['dense']:.1f} | {found['bytes']:,} | {over:.2%} |"
    )


if __name__ == "__main__":
    main()
