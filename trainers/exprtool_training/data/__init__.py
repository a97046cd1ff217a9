"""Training and evaluation data: finding, checking, cropping, splitting and loading labelled faces."""

from exprtool_training.data.prepare import PrepareOptions, load_prepared, prepare
from exprtool_training.data.prepared import PreparedSet, read_prepared
from exprtool_training.data.sources import ScanOptions, Source, scan

__all__ = [
    "PrepareOptions",
    "PreparedSet",
    "ScanOptions",
    "Source",
    "load_prepared",
    "prepare",
    "read_prepared",
    "scan",
]
