"""How the values of parameters are called in an ML program."""

from __future__ import annotations

import re

CAST = "_cast_fp16"
"""What coremltools puts behind the names of values that it makes float16."""


def value_name(parameter: str) -> str:
    """A parameter's name in letters, digits and underscores: ``fc.weight`` gives ``fc_weight``."""
    return re.sub(r"\W", "_", f"w_{parameter}" if parameter[0].isdigit() else parameter)
