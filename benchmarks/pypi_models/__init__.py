"""ONNX models of PyPI packages, palettized file to file: ``python -m benchmarks.pypi_models``."""
