"""ATen calls in terms of others: those that coremltools does not know, or gets wrong."""
