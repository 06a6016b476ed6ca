"""A file's answers against the original's: a sentence, and the inputs that are answered anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dkm_deploy.report import summary, text
from dkm_deploy.report.markup import Column, Markup, element, join, table

_MOST = 20


def answers(model: Mapping[str, Any]) -> list[Markup]:
    """A heading, the sentence and the flips; nothing where there are no answers."""
    sentence = summary.answers(model)
    if not sentence:
        return []
    parts = [element("h3", "Answers against the original"), element("p", f"{sentence}.")]
    return parts + ([_flips(model)] if model["flips"] else [])


def _flips(model: Mapping[str, Any]) -> Markup:
    columns = [Column("Input"), Column("Original"), Column("This file"), Column("Label")]
    rows = [_row(flip) for flip in model["flips"][:_MOST]]
    listed = table(f"Flips of {model['name']}", columns, rows, narrow=True)
    more = model["flip_count"] - len(rows)
    if not more:
        return listed
    note = f"{text.plural(more, 'further flip')}; the JSON lists the first 1,000."
    return join([listed, element("p", note, class_="muted")])


def _row(flip: Mapping[str, Any]) -> list[str]:
    label = text.DASH if flip["label"] is None else str(flip["label"])
    return [str(flip["input"]), str(flip["original"]), str(flip["answer"]), label]
