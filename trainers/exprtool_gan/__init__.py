"""Training the paper's networks: data, losses, loop, checkpoints, ablations, export."""
