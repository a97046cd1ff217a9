"""The flow network at work: it looks at an aligned crop once and moves, lights and paints the photo for any expression.

Needs no face model and no PyTorch. `exprtool_flow` trains the network and writes the file that this package runs.
"""
