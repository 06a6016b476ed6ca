"""Golden bundles: inputs and the outputs that a device must give for them."""
