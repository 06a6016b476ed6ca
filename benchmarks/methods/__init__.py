"""Every way to a palette on three trained models: ``python -m benchmarks.methods``."""
