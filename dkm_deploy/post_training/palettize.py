"""Palettize a trained model without a training loop."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from dkm_deploy.conversion.recipe_check import check
from dkm_deploy.model.calibration import Calibration
from dkm_deploy.model.palettized import with_palettes
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.nn_utils.state_guard import keep_random_state
from dkm_deploy.nn_utils.weights import with_plain_parameters
from dkm_deploy.post_training.methods import PostTrainingMethod, method_named
from dkm_deploy.recipe import PaletteSpec, Recipe


@keep_random_state()
def palettize(
    model: nn.Module,
    recipe: Recipe | PaletteSpec | int,
    method: str | PostTrainingMethod = "kmeans",
    calibration: Calibration | None = None,
    *,
    targets: Sequence[str] = (),
) -> nn.Module:
    """Cluster the weights of a trained model, without a training loop.

    Args:
        model: a plain model; it is left as it was. Norms, pruning masks and parametrizations on its
            weights are applied, and gone from what is returned.
        recipe: which weight gets which palette; a spec or a number of bits is for all.
        method: "kmeans", which looks at the weights alone; "sensitive", which weighs them by
            their squared gradients; "bin_quant", which asks the top-1 accuracy; or a record such
            as ``dkm.SensitiveKMeans(loss=..)``.
        calibration: for methods that look at more than weights: batches as :func:`dkm_deploy.fit`
            takes them, ``(inputs, labels)`` or the inputs alone; or all samples at once, a tensor
            or a mapping of keyword inputs. K-means takes none.
        targets: names of targets that must be able to hold the palettes, such as "onnx" or
            "coreml:iOS17".

    Returns:
        A frozen module in eval mode, as :func:`freeze` gives it.

    Raises:
        DkmError: the recipe does not fit the model or a target, a weight holds NaN or infinity, or
            the calibration data does not fit the method or the model.
    """
    model, recipe, chosen = model_of(model), Recipe.of(recipe), method_named(method)
    specs = check(model, recipe, targets)
    model = with_plain_parameters(model)
    return with_palettes(model, chosen.palettes(model, specs, calibration))
