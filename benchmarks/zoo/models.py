"""All architectures of the zoo, and which of them cannot be made here."""

from __future__ import annotations

from fnmatch import fnmatch
from importlib.util import find_spec

from benchmarks.zoo.architecture import Architecture
from benchmarks.zoo.image_models import image_models
from benchmarks.zoo.own_models import own_models
from benchmarks.zoo.transformers_models import transformers_models


def architectures(pattern: str = "*") -> list[Architecture]:
    """Those whose name fits a pattern, one family after the other in turn.

    So the first results are of all families.
    """
    families = [
        own_models(),
        image_models("torchvision"),
        image_models("timm"),
        transformers_models(),
    ]
    ranked = [(place / len(family), one) for family in families for place, one in enumerate(family)]
    return [one for _, one in sorted(ranked, key=lambda r: r[0]) if fnmatch(one.name, pattern)]


def is_missing(package: str | None) -> bool:
    """Whether a package that models need is not installed."""
    return package is not None and find_spec(package) is None
