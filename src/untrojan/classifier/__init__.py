"""Trained networks: what they are, where they come from, and how they are left after use."""

from untrojan.classifier.checkpoint import load_weights, read_checkpoint
from untrojan.classifier.classifier import Classifier
from untrojan.classifier.cost import CostMeter
from untrojan.classifier.factory import build_module
from untrojan.classifier.finite import finite_answers
from untrojan.classifier.loading import (
    VictimCard,
    load_classifier,
    load_victim_folder,
    parse_device,
    printable,
    read_card,
)
from untrojan.classifier.state import as_found, rng_as_found

__all__ = [
    "Classifier",
    "CostMeter",
    "VictimCard",
    "as_found",
    "build_module",
    "finite_answers",
    "load_classifier",
    "load_victim_folder",
    "load_weights",
    "parse_device",
    "printable",
    "read_card",
    "read_checkpoint",
    "rng_as_found",
]
