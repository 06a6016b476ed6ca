"""ONNX models as graphs: load, who uses what, inputs and outputs, data files."""
