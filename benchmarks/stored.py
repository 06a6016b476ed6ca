"""Bytes of a file apart from its graph."""

from __future__ import annotations

from collections.abc import Mapping

from dkm_deploy.formats.ledger import Kind


def stored_bytes(by_kind: Mapping[str, int] | Mapping[Kind, int]) -> int:
    """Indices, LUTs and dense weights: all but graph, metadata and padding.

    Args:
        by_kind: as :meth:`dkm_deploy.Ledger.by_kind` gives it.
    """
    return by_kind["indices"] + by_kind["lut"] + by_kind["dense"]
