"""Palettize a trained model without a training loop."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from dkm_deploy._support.argument_checks import usage
from dkm_deploy.conversion.recipe_check import check
from dkm_deploy.model.calibration import Calibration
from dkm_deploy.model.palettized import with_palettes
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.nn_utils.state_guard import keep_random_state
from dkm_deploy.nn_utils.weights import with_plain_parameters
from dkm_deploy.post_training.methods import PostTrainingMethod, post_training_method
from dkm_deploy.recipe import Recipe, RecipeLike


@usage('dkm.palettize(model, 4, method="sensitive", calibration=data)')
@keep_random_state()
def palettize(
    model: nn.Module,
    recipe: RecipeLike,
    method: str | PostTrainingMethod = "kmeans",
    calibration: Calibration | None = None,
    *,
    targets: Sequence[str] = (),
) -> nn.Module:
    """Cluster the weights of a trained model, without a training loop.

    Args:
        model: a plain model; it does not change. Norms, pruning masks and parametrizations of its
            weights are applied, and are no longer in the result.
        recipe: which weight gets which palette. A spec or a number of bits applies to all weights.
        method: "kmeans" reads the weights alone, "sensitive" weights them by their squared
            gradients, "bin_quant" uses the top-1 accuracy; or a record such as
            ``dkm.SensitiveKMeans(loss=..)``.
        calibration: data for methods that need it: batches as for :func:`dkm_deploy.fit`,
            ``(inputs, labels)`` or the inputs alone; or all samples at once, as a tensor or a
            mapping of keyword inputs. "kmeans" takes none.
        targets: targets that must be able to hold the palettes, such as "onnx" or "coreml:iOS17".

    Returns:
        A frozen module in eval mode, as from :func:`dkm_deploy.freeze`.

    Raises:
        DkmError: the recipe does not fit the model or a target, a weight holds NaN or infinity, or
            the calibration data does not fit the method or the model.

    Example:
        >>> frozen = dkm.palettize(nn.Linear(8, 4), 2)
        >>> frozen(torch.ones(1, 8)).shape, len(frozen.weight.unique())
        (torch.Size([1, 4]), 4)
    """
    model, recipe, chosen = model_of(model), Recipe.of(recipe), post_training_method(method)
    specs = check(model, recipe, targets).specs
    model = with_plain_parameters(model)
    return with_palettes(model, chosen.palettes(model, specs, calibration))
