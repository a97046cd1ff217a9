"""Training data from portraits: every portrait becomes the same person with any expression, with exact optical flow.

`states` draws what faces shall wear, `canvas` cuts and varies the portrait, `pairs` renders two expressions of it and
the flow between them, `gate` throws out what nobody should learn from, `dataset` runs it all and writes the set.
"""
