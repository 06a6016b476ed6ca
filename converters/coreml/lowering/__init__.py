"""From ATen to MIL: palettes, recurrent layers, and what coremltools lacks."""
