"""The version of this package, as installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


def version() -> str:
    """Such as ``0.1.0``; ``unknown`` when the package runs from a folder that was never installed."""
    try:
        return installed("untrojan")
    except PackageNotFoundError:
        return "unknown"
