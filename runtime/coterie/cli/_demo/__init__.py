"""The parts of ``coterie demo``: train, export, ask over every transport, time, and tell."""
