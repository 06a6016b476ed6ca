"""More ONNX files of PyPI packages, on random inputs: ``python -m benchmarks.pypi_files``."""
