"""The suite of small ONNX models in many runtimes: ``python -m benchmarks.runtimes``."""
