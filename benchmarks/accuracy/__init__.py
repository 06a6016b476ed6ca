"""The papers' results, trained and measured from the files: ``python -m benchmarks.accuracy``."""
