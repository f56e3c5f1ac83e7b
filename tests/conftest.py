"""Being here, this file puts the folder on the import path: ``from oracles.histogram import dense_histogram``."""

from hypothesis import settings

# The same examples in every run: a red build is then about the change at hand. `--hypothesis-profile=default` explores.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
