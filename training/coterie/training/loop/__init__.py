"""The training loop: batches, objectives, gradients, updates, checkpoints and scores.

It knows stages by what all of them have in common, and nothing of the files of a run but its own checkpoints.
"""
