"""What every trainer shares: the run's folder, resume, schedule, screen, TensorBoard, memory advice, several processes.

A trainer is a dataclass of settings (`config.RunConfig`) and a `method.Method`, which holds data, networks and losses
and does one step; `loop.train` does everything around it. Nothing here needs PyTorch unless a method does.
"""
