"""US-GAN (Akram & Khan, "On the importance of ultimate skip connection for facial expression synthesis") in PyTorch."""
