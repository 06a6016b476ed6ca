"""Non-maximum suppression of boxes, as Core ML's ``NeuralNetwork.proto`` describes it."""

import torch
from torch import Tensor
from torch.nn import functional

from dkm_deploy.formats.mlpackage.limits import check_elements
from dkm_deploy.runtimes.mlprogram.kernels.registry import kernel


@kernel("non_maximum_suppression")
def _non_maximum_suppression(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    max_boxes: int,
    score_threshold: float | None = None,
    per_class_suppression: bool = False,
) -> tuple[Tensor, ...]:
    """Boxes, scores and places of the survivors; before iOS 17 also how many there are.

    Before iOS 17 there is a score threshold, and the boxes stand along dimension 1; since then,
    along the last one.
    """
    turned = score_threshold is None
    if turned:
        boxes, scores = boxes.mT, scores.mT
    check_elements([len(boxes), max_boxes, 4 + scores.shape[2]])
    kept = [
        _survivors(b, s, iou_threshold, score_threshold, per_class_suppression)[:max_boxes]
        for b, s in zip(boxes, scores, strict=True)
    ]
    found = [
        torch.stack([_fill_to(v[k], max_boxes) for v, k in zip(values, kept, strict=True)])
        for values in (boxes, scores)
    ]
    places = torch.stack([_fill_to(k, max_boxes, -1) for k in kept])
    if turned:
        return found[0].mT, found[1].mT, places
    return found[0], found[1], places, torch.tensor([len(k) for k in kept])


def _survivors(
    boxes: Tensor, scores: Tensor, most_iou: float, least_score: float | None, per_class: bool
) -> Tensor:
    """Places of the boxes that stay, the best first. A box's score is its best class's.

    Where all scores are below the threshold, the best box stays.
    """
    best, classes = scores.max(-1)
    order = best.argsort(descending=True, stable=True)
    if least_score is not None:
        order = order[best[order] >= least_score]
    if not len(order):
        return best.argmax().reshape(1)
    rivals = _iou(boxes) > most_iou
    if per_class:
        rivals &= classes[:, None] == classes
    kept: list[int] = []
    for place in order.tolist():
        if not rivals[place, kept].any():
            kept.append(place)
    return torch.tensor(kept)


def _iou(boxes: Tensor) -> Tensor:
    """Intersection over union of all pairs of boxes (x and y of the centre, width, height)."""
    check_elements([len(boxes), len(boxes)])
    centres, sizes = boxes[:, :2], boxes[:, 2:]
    starts, ends = centres - sizes / 2, centres + sizes / 2
    overlaps = torch.minimum(ends[:, None], ends) - torch.maximum(starts[:, None], starts)
    shared = overlaps.clamp(min=0).prod(-1)
    areas = sizes.prod(-1)
    return shared / (areas[:, None] + areas - shared)


def _fill_to(x: Tensor, length: int, value: float = 0) -> Tensor:
    """``x`` made longer along dimension 0."""
    return functional.pad(x, [0, 0] * (x.ndim - 1) + [0, length - len(x)], value=value)
