"""Golden bundles: inputs and the outputs that a device must give for them."""

MANIFEST = "bundle.json"
"""The file that makes a folder a bundle."""
