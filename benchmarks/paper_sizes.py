"""The sizes of the DKM paper as files: ``python -m benchmarks.paper_sizes``.

Configurations are those of figure 4 and table 4 of Cho et al. 2022 (arXiv 2108.12659): bits and
dimension of convolutions, of the last layer and of embeddings; 8 bits for a layer of less than
10,000 weights. Weights and palettes are random, as bytes do not depend on values. A file must be at
most 2 % larger than the paper's figure, its graph apart. ``--out FOLDER`` keeps the files.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from benchmarks.process import cpu, versions
from benchmarks.stored import stored_bytes
from dkm_deploy.model.palettized import with_palettes

MIB = 2**20
_SMALL = 10_000
_MARGIN = 0.02
_TARGETS: Mapping[str, Mapping[str, Any]] = {
    "onnx": {"storage_dtype": "float16"},
    "mlpackage": {"compute_precision": "float16"},
    "aimodel": {"compute_precision": "float16"},
}


@dataclass(frozen=True)
class Setting:
    """A row of the paper.

    Attributes:
        network: its name.
        body: bits and dimension of convolutions or of a transformer's layers.
        last: of the last layer; of a transformer, of its embeddings.
        mib: the paper's size in MiB.
    """

    network: str
    body: tuple[int, int]
    last: tuple[int, int]
    mib: float


SETTINGS = (
    Setting("ResNet-18", (5, 8), (8, 4), 1.00),
    Setting("ResNet-18", (6, 8), (6, 10), 1.09),
    Setting("ResNet-18", (4, 4), (8, 4), 1.49),
    Setting("ResNet-50", (6, 6), (6, 4), 3.32),
    Setting("MobileNet-v1", (4, 4), (4, 2), 0.72),
    Setting("MobileNet-v2", (2, 1), (4, 4), 0.84),
    Setting("DistilBERT", (4, 2), (4, 1), 21.8),
    Setting("DistilBERT", (5, 2), (3, 1), 21.5),
)


class _First(nn.Module):
    """The logits of a transformers model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)[0]
        return logits


def _resnet(depths: list[int], sizes: list[int], kind: str) -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(hidden_sizes=sizes, depths=depths, layer_type=kind, num_labels=1000)
    made: nn.Module = ResNetForImageClassification(config)
    return made


def _mobilenet_v1() -> nn.Module:
    from transformers import MobileNetV1Config, MobileNetV1ForImageClassification

    made: nn.Module = MobileNetV1ForImageClassification(MobileNetV1Config(num_labels=1000))
    return made


def _mobilenet_v2() -> nn.Module:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    made: nn.Module = MobileNetV2ForImageClassification(MobileNetV2Config(num_labels=1000))
    return made


def _distilbert() -> nn.Module:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    made: nn.Module = DistilBertForSequenceClassification(DistilBertConfig(num_labels=3))
    return made


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "ResNet-18": lambda: _resnet([2, 2, 2, 2], [64, 128, 256, 512], "basic"),
    "ResNet-50": lambda: _resnet([3, 4, 6, 3], [256, 512, 1024, 2048], "bottleneck"),
    "MobileNet-v1": _mobilenet_v1,
    "MobileNet-v2": _mobilenet_v2,
    "DistilBERT": _distilbert,
}


def widths(model: nn.Module, setting: Setting) -> dict[str, tuple[int, int]]:
    """Bits and dimension of each weight that the paper clusters, by parameter name."""
    found = {}
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, _LAYERS)]
    last = [name for name, module in layers if not isinstance(module, nn.Embedding)][-1]
    embeds = any(isinstance(module, nn.Embedding) for _, module in layers)
    for name, module in layers:
        size = module.weight.numel()
        is_last = isinstance(module, nn.Embedding) if embeds else name == last
        wanted = setting.last if is_last else setting.body
        found[f"{name}.weight"] = (8, 1) if size < _SMALL else wanted
    return found


_LAYERS = (nn.Conv2d, nn.Linear, nn.Embedding)


def rule_bytes(model: nn.Module, setting: Setting) -> float:
    """Bytes by the paper's own count: indices, LUTs, scales and biases of norms and of layers.

    All but indices is of 16 bits; running statistics are not counted, nothing is coded further.
    """
    chosen, bits = widths(model, setting), 0.0
    for name, parameter in model.named_parameters():
        if name in chosen:
            width, dim = chosen[name]
            bits += parameter.numel() / dim * width + (dim << width) * 16
        else:
            bits += parameter.numel() * 16
    return bits / 8


def specs(model: nn.Module, setting: Setting) -> dict[str, dkm.PaletteSpec]:
    """The palettes of a setting. Where vectors do not divide the channels, others of equal bits."""
    found = {}
    for name, (width, dim) in widths(model, setting).items():
        spec = dkm.PaletteSpec(width, cluster_dim=dim)
        shape = model.get_parameter(name).shape
        found[name] = spec if spec.refuse(shape) is None else _equal_bits(width, dim, shape)
    return found


def _equal_bits(width: int, dim: int, shape: torch.Size) -> dkm.PaletteSpec:
    """The longest shorter vectors of the same bits a weight, along either dimension."""
    for shorter in range(dim - 1, 0, -1):
        bits, rest = divmod(width * shorter, dim)
        for axis in (0, 1):
            spec = dkm.PaletteSpec(max(bits, 1), cluster_dim=shorter, axis=axis)
            if not rest and spec.refuse(shape) is None:
                return spec
    raise ValueError(f"no palette of {width}/{dim} bits a weight fits {tuple(shape)}")


def _stand_ins(
    model: nn.Module, chosen: Mapping[str, dkm.PaletteSpec]
) -> Iterator[tuple[str, dkm.Palette]]:
    """Random palettes."""
    random = np.random.default_rng(0)
    for name, spec in chosen.items():
        shape = list(model.get_parameter(name).shape)
        shape[spec.axis] //= spec.cluster_dim
        indices = random.integers(0, 1 << spec.bits, shape, dtype=np.uint8)
        lut = random.normal(0, 0.05, (*[1] * len(shape), 1 << spec.bits, spec.cluster_dim))
        yield name, dkm.Palette(indices, lut.astype(np.float16).astype(np.float32), spec.axis)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a folder that keeps the files")
    parser.add_argument("--only", default="", help="networks whose name has this in it")
    arguments = parser.parse_args()
    print(f"{cpu()}; {versions('torch', 'transformers', 'coremltools', 'onnxruntime')}\n")
    print(
        "| network | bits/dimension | paper, MiB | its count | file | MiB | of it graph, KiB "
        "| the rest over the paper |\n|---|---|---|---|---|---|---|---|"
    )
    with TemporaryDirectory() as folder:
        for setting in (one for one in SETTINGS if arguments.only in one.network):
            for row in _rows(setting, arguments.out or Path(folder)):
                print(row, flush=True)


def _rows(setting: Setting, folder: Path) -> Iterator[str]:
    torch.manual_seed(0)
    model = NETWORKS[setting.network]().eval()
    count = rule_bytes(model, setting) / MIB
    is_text = setting.network == "DistilBERT"
    x = torch.arange(1, 17)[None] if is_text else torch.randn(1, 3, 224, 224)
    plain = _First(model)
    chosen = {f"model.{name}": spec for name, spec in specs(model, setting).items()}
    folded = plain if is_text else dkm.fold_batch_norm(plain, x)
    frozen = with_palettes(folded, _stand_ins(folded, chosen))
    name = (
        f"{setting.network} {setting.body[0]}-{setting.body[1]} {setting.last[0]}-{setting.last[1]}"
    )
    told = "{}/{}, {}/{}".format(*setting.body, *setting.last)
    for target, options in _TARGETS.items():
        path = folder / f"{name}.{target}"
        ledger = dkm.convert(frozen, x, path, force=True, try_file=False, **options).ledger
        kinds, total = ledger.by_kind(), ledger.total_bytes
        graph = total - stored_bytes(kinds)
        over = (total - graph) / MIB / setting.mib - 1
        mark = "" if over <= _MARGIN else " **too large**"
        yield (
            f"| {setting.network} | {told} | {setting.mib:g} | {count:.3f} | .{target} "
            f"| {total / MIB:.3f} | {graph / 1024:.1f} | {over:+.1%}{mark} |"
        )


if __name__ == "__main__":
    main()
