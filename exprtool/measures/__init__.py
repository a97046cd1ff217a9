"""Measuring what a backend or network does: identity, expression, size; as tables and as pictures."""

from exprtool.measures.expression import Accuracy, OnnxClassifier, expression_accuracy
from exprtool.measures.facepp import FacePlusPlus, face_verification_score
from exprtool.measures.identity import Identity, acd, identity
from exprtool.measures.paper import TABLE_1, PaperRow
from exprtool.measures.stats import Stat

__all__ = [
    "TABLE_1",
    "Accuracy",
    "FacePlusPlus",
    "Identity",
    "OnnxClassifier",
    "PaperRow",
    "Stat",
    "acd",
    "expression_accuracy",
    "face_verification_score",
    "identity",
]
