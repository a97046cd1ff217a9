"""The methods that the paper is compared with, each on the shared trainer: same crops, same checkpoints, same measures.

`regression` needs no PyTorch; the others are adversarial and share `adversarial`.
"""
