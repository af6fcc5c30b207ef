"""Load and ask a bundle. Needs NumPy and ONNX Runtime; neither torch, onnx nor BentoML."""
