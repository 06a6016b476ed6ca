"""From an exported program to an ONNX file."""
