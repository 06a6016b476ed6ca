"""What is decomposed for Core AI, written and run by Apple's runtime, against PyTorch."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

import dkm_deploy as dkm
from tests.converters.coreai.assets import extra, outputs, relative_error

extra()


class Lacking(nn.Module):
    """One output each of calls that coreai-torch lacks or gets wrong."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)
        self.bag = nn.EmbeddingBag(9, 5, mode="max")

    def forward(self, image, grid, solid, words):
        line = image.flatten(2)
        places = line[0, 0].sort()[1]
        ranks = torch.empty_like(places)
        ranks[places] = torch.arange(len(places))
        pool = functional.avg_pool2d(image, 3, 2, 1, ceil_mode=True, count_include_pad=False)
        return {
            "average": pool,
            "largest": functional.max_pool2d(image, 2, ceil_mode=True),
            "pooled": functional.adaptive_avg_pool2d(image.permute(0, 3, 1, 2), 1),
            "solid": functional.max_pool3d(solid, 3, 2, 1),
            "solid_average": functional.adaptive_avg_pool3d(solid, 2),
            "adaptive_largest": functional.adaptive_max_pool2d(image, 3),
            "nearest": functional.interpolate(image, size=(5, 11)),
            "antialiased": functional.interpolate(
                image, size=(5, 4), mode="bicubic", antialias=True
            ),
            "bicubic": functional.interpolate(image, size=(5, 11), mode="bicubic"),
            "grid": functional.grid_sample(image, grid, align_corners=False),
            "norm": self.norm(image),
            "spread": image.std(1),
            "elu": functional.celu(image, 1.3),
            "lower": line[:, *torch.tril_indices(4, 20)],
            "order": image.sort(1, descending=True)[0],
            "least": image.argmin(1).float(),
            "diagonal": image.diagonal(1, 2, 3),
            "windows": line.unfold(2, 5, 3),
            "folded": functional.fold(functional.unfold(image, 2), (9, 7), 2),
            "product": image.cumprod(1),
            "finite": image.isfinite().float(),
            "spectrum": torch.fft.rfft2(image).abs(),
            "sound": torch.fft.irfft(torch.fft.rfft(line), n=63),
            "bag": self.bag(words),
            "masked": line[line[:, 0, 0] > -9].sum(0),
            "least_of": line[0, 0].scatter_reduce(0, places % 5, line[0, 1], "amin"),
            "ranks": ranks.float(),
            "bits": (words & 3).float(),
        }


def test_what_coreai_torch_lacks_runs_as_in_pytorch(tmp_path):
    torch.manual_seed(0)
    inputs = (
        torch.randn(2, 4, 9, 7),
        1.2 * torch.randn(2, 5, 6, 2),
        torch.randn(2, 3, 7, 6, 5),
        torch.randint(9, (3, 4)),
    )
    model = Lacking().eval()
    artifact = dkm.convert(model, inputs, tmp_path / "m.aimodel")
    found = outputs(artifact.path, *inputs)
    with torch.no_grad():
        errors = {name: relative_error(found[name], y) for name, y in model(*inputs).items()}
    assert {name: error for name, error in errors.items() if error > 1e-5} == {}
