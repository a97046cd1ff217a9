"""Weights: which are known, where they lie, and how they get there."""
