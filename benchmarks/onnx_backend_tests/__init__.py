"""ONNX's backend tests on palettes: ``python -m benchmarks.onnx_backend_tests``."""
