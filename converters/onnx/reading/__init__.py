"""What an ONNX file holds: palettes, dense tensors, every byte."""
