"""Measuring: the paper's rates and their intervals. Ground truth enters here alone."""

from untrojan.evaluation.evaluate import evaluate
from untrojan.intervals import wilson

__all__ = ["evaluate", "wilson"]
