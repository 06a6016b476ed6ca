"""Ways to make palettes after training. A method turns a model's weights into palettes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from dkm_deploy._support.argument_checks import check_implements, function
from dkm_deploy.clustering.kmeans_palette import cluster
from dkm_deploy.errors import DkmError
from dkm_deploy.model.calibration import Calibration
from dkm_deploy.palette import Palette
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.post_training.bin_quant import BinQuant
from dkm_deploy.post_training.sensitivity import squared_gradients
from dkm_deploy.training.loop.objective import Loss

Palettes = Iterator[tuple[str, Palette]]


class PostTrainingMethod(Protocol):
    """A way to make palettes without a training loop; a frozen record of its options."""

    @property
    def calibrated(self) -> bool:
        """Whether it takes calibration data."""
        ...

    def palettes(
        self,
        model: nn.Module,
        specs: Mapping[str, PaletteSpec],
        calibration: Calibration | None,
    ) -> Palettes:
        """Palettes by name, one after the other.

        Args:
            model: a plain model with finite weights; it must be left as it was.
            specs: of its parameters by qualified name; each fits its weight.
            calibration: as the user gave it.

        Raises:
            DkmError: the calibration data does not fit the method or the model.
        """
        ...


@dataclass(frozen=True)
class KMeans:
    """K-means with the least squared error of the weights; it needs no calibration data.

    Example:
        >>> frozen = dkm.palettize(nn.Linear(8, 4), 2, method=dkm.KMeans())
        >>> len(frozen.weight.unique())
        4
    """

    @property
    def calibrated(self) -> bool:
        """It looks at the weights alone."""
        return False

    def palettes(
        self,
        model: nn.Module,
        specs: Mapping[str, PaletteSpec],
        calibration: Calibration | None,
    ) -> Palettes:
        """See :func:`dkm_deploy.clustering.kmeans_palette.cluster`."""
        if calibration is not None:
            raise DkmError("method kmeans takes no calibration data; leave calibration out")
        yield from _cluster_weights(model, specs, {})


@dataclass(frozen=True)
class SensitiveKMeans:
    """K-means weighted by squared gradients, the diagonal of the Fisher information.

    It minimizes the increase of the loss to second order, if the errors of different weights do not
    interact: SqueezeLLM (Kim et al. 2023, arXiv 2306.07629, section 4.1).

    Attributes:
        loss: ``loss(outputs, labels)``, a mean over the batch. None is cross entropy where
            calibration batches have labels, and the relative error of the outputs where they have
            none; see :func:`dkm_deploy.post_training.sensitivity.squared_gradients`.

    Raises:
        DkmError: ``loss`` is not a function.

    Example:
        >>> batch = (torch.randn(4, 8), torch.tensor([0, 1, 2, 3]))
        >>> method = dkm.SensitiveKMeans(loss=nn.functional.cross_entropy)
        >>> frozen = dkm.palettize(nn.Linear(8, 4), 2, method, calibration=[batch])
        >>> len(frozen.weight.unique())
        4
    """

    loss: Loss | None = None

    def __post_init__(self) -> None:
        function("loss", self.loss)

    @property
    def calibrated(self) -> bool:
        """It takes gradients."""
        return True

    def palettes(
        self,
        model: nn.Module,
        specs: Mapping[str, PaletteSpec],
        calibration: Calibration | None,
    ) -> Palettes:
        """Weigh, then cluster; a weight that nothing depends on gets plain k-means."""
        if calibration is None:
            raise DkmError(
                "method sensitive weighs weights by gradients on calibration data: give "
                "calibration=, batches of (inputs, labels) or of inputs"
            )
        yield from _cluster_weights(
            model, specs, squared_gradients(model, specs, calibration, self.loss)
        )


def _cluster_weights(
    model: nn.Module, specs: Mapping[str, PaletteSpec], importance: Mapping[str, Tensor]
) -> Palettes:
    for name, spec in specs.items():
        weight = model.get_parameter(name).detach()
        yield name, cluster(weight, spec, importance.get(name))


METHODS: dict[str, PostTrainingMethod] = {
    "kmeans": KMeans(),
    "sensitive": SensitiveKMeans(),
    "bin_quant": BinQuant(),
}


def post_training_method(method: str | PostTrainingMethod) -> PostTrainingMethod:
    """A method by its name, or itself."""
    if not isinstance(method, str):
        return check_implements("method", method, "palettes", METHODS)
    if method not in METHODS:
        raise DkmError(
            f"unknown post-training method {method!r}; known methods are {', '.join(METHODS)}"
        )
    return METHODS[method]
