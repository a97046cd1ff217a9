"""Any generator on aligned face crops, from an ONNX file, on ONNX Runtime."""
