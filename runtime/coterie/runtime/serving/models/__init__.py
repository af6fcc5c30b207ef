"""Tasks as models: named tensors in, named tensors out, in versions, on no particular transport."""
