"""From an ONNX file to an ONNX file: palettes in place of its weights."""
