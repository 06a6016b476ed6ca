"""Non-maximum suppression, before and since iOS 17, by the rules of Core ML's specification."""

import numpy as np
import pytest

from dkm_deploy.runtimes.mlprogram import runtime
from tests.formats.mlpackage.packages import mb, save

# x and y of the centre, width, height. 1 and 0 share 6 of 10, 2 and 0 share 4 of 12: IoU 0.6, 1/3.
BOXES = np.float32([[2, 1, 4, 2], [3, 1, 4, 2], [4, 1, 4, 2], [20, 1, 4, 2], [20, 1, 4, 2]])
SCORES = np.float32([[0.9, 0], [0.8, 0.1], [0, 0.7], [0.2, 0], [0, 0.6]])
LIMITS = {"iou_threshold": 0.5, "max_boxes": 6}


def _before_17(folder, boxes=BOXES, scores=SCORES, least=0.0, **options):
    def body(boxes, scores):
        made = mb.non_maximum_suppression(
            boxes=boxes, scores=scores, score_threshold=least, **{**LIMITS, **options}
        )
        return tuple(mb.identity(x=y, name=f"y{i}") for i, y in enumerate(made))

    shapes = [(1, *boxes.shape), (1, *scores.shape)]
    path = save(folder / "m.mlpackage", body, *shapes, target="iOS16")
    outputs = runtime.load(path).run({"boxes": boxes[None], "scores": scores[None]})
    return [outputs[f"y{i}"][0] for i in range(4)]


def _places(folder, **options):
    boxes, scores, places, count = _before_17(folder, **options)
    kept = places[:count]
    np.testing.assert_array_equal(boxes[:count], BOXES[kept])
    np.testing.assert_array_equal(scores[:count], SCORES[kept])
    assert not boxes[count:].any()
    assert not scores[count:].any()
    assert (places[count:] == -1).all()
    return kept.tolist()


def test_the_best_suppress_what_overlaps_more_than_the_threshold(tmp_path):
    assert _places(tmp_path) == [0, 2, 4]
    assert _places(tmp_path, iou_threshold=0.3) == [0, 4]
    assert _places(tmp_path, iou_threshold=0.7) == [0, 1, 2, 4]


def test_a_suppressed_box_suppresses_none(tmp_path):
    assert _places(tmp_path, iou_threshold=0.55) == [0, 2, 4]  # 1 and 2 share 0.6 too


def test_classes_apart(tmp_path):
    assert _places(tmp_path, per_class_suppression=True) == [0, 2, 4, 3]


def test_the_score_threshold_and_the_most_boxes(tmp_path):
    assert _places(tmp_path, least=0.65) == [0, 2]
    assert _places(tmp_path, max_boxes=1) == [0]


def test_the_best_stays_where_all_are_below_the_threshold(tmp_path):
    assert _places(tmp_path, least=0.95) == [0]


def test_since_ios_17_boxes_stand_last_and_no_count_comes(tmp_path):
    def body(boxes, scores):
        made = mb.non_maximum_suppression(boxes=boxes, scores=scores, **LIMITS)
        return tuple(mb.identity(x=y, name=f"y{i}") for i, y in enumerate(made))

    path = save(tmp_path / "m.mlpackage", body, (1, 4, 5), (1, 2, 5), target="iOS17")
    outputs = runtime.load(path).run({"boxes": BOXES.T[None], "scores": SCORES.T[None]})
    assert len(outputs) == 3
    assert outputs["y2"].tolist() == [[0, 2, 4, -1, -1, -1]]
    np.testing.assert_array_equal(outputs["y0"][0, :, :3], BOXES[[0, 2, 4]].T)
    np.testing.assert_array_equal(outputs["y1"][0, :, :3], SCORES[[0, 2, 4]].T)
    assert not outputs["y0"][0, :, 3:].any()


@pytest.mark.parametrize("per_class", [True, False])
def test_many_boxes_keep_what_the_rule_says(tmp_path, per_class):
    """No two survivors are rivals, and each box that went is a rival of a better survivor."""
    generator = np.random.default_rng(0)
    boxes = generator.uniform([0, 0, 1, 1], [20, 20, 6, 6], (60, 4)).astype(np.float32)
    scores = generator.uniform(0, 1, (60, 3)).astype(np.float32)
    options = {"max_boxes": 60, "iou_threshold": 0.2, "per_class_suppression": per_class}
    *_, places, count = _before_17(tmp_path, boxes, scores, **options)
    kept = places[:count].tolist()
    best, classes = scores.max(-1), scores.argmax(-1)

    def rivals(a, b):
        return _iou(boxes[a], boxes[b]) > 0.2 and (not per_class or classes[a] == classes[b])

    assert np.all(np.diff(best[kept]) <= 0)
    assert not any(rivals(a, b) for a in kept for b in kept if a != b)
    gone = set(range(60)) - set(kept)
    assert gone
    assert all(any(rivals(g, k) and best[k] >= best[g] for k in kept) for g in gone)


def _iou(a, b):
    """Of two boxes, corner by corner."""
    width = min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2)
    height = min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2)
    shared = max(0, width) * max(0, height)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)
