"""The rows of the paper's Table 1, to stand beside one's own.

A. Akram and N. Khan, "US-GAN: On the importance of Ultimate Skip Connection for Facial Expression Synthesis",
Table 1. ACD is eq. 9 with the embedding of ageitgey/face_recognition, FVS the confidence of the Face++ compare service,
both over the generated pictures of the held-out tenth of KDEF, RaFD and CFEE.
"""

from __future__ import annotations

from dataclasses import dataclass

CITATION = "Akram & Khan, US-GAN, Table 1"
PAPER_DATASETS = {"KDEF", "RaFD", "CFEE"}
"""What the paper trained and measured on (section 3.5)."""


@dataclass(frozen=True)
class PaperRow:
    """One method's figures as the paper prints them; the paper gives no spread for ACD."""

    method: str
    parameters: float
    training_images: float
    acd: float
    fvs: float
    fvs_sd: float


TABLE_1: tuple[PaperRow, ...] = (
    PaperRow("US-GAN", 2.5e6, 2.5e3, 0.2832, 94.19, 1.11),
    PaperRow("StarGAN", 8.5e6, 2.1e5, 0.5660, 91.71, 1.95),
    PaperRow("STGAN", 7.4e7, 2.0e5, 0.3725, 92.05, 2.81),
    PaperRow("GANimation", 8.5e6, 4.1e5, 0.3899, 87.98, 8.67),
)
