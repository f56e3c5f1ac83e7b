"""Being here, this file puts the folder on the import path: ``from oracles.histogram import dense_histogram``."""
