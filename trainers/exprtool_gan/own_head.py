"""The discriminator's own expression head, as a judge that is marked as partial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exprtool.errors import ModelError
from exprtool.measures.evaluation import Classifier


def own_head(path: Path) -> Classifier | None:
    """D_c of a run or checkpoint; None where no discriminator was kept (an exported or a best checkpoint)."""
    if not (path.is_dir() or path.suffix == ".safetensors"):
        return None
    import torch

    from exprtool_usgan.checkpoint import load_discriminator

    try:
        discriminator, card = load_discriminator(path)
    except ModelError:
        return None

    @torch.inference_mode()
    def classify(images: NDArray[np.uint8]) -> NDArray[np.floating]:
        x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 127.5 - 1
        return discriminator(x)[1].numpy()

    return Classifier(card.labels, classify, "own head")
