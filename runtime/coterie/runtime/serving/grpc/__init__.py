"""gRPC: the Open Inference Protocol, health and reflection."""
