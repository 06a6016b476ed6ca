"""Correct the outputs of a palettized model, layer by layer, without labels."""
