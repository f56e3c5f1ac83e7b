"""How small triggers get in honest classifiers: what every verdict is measured against.

Made by ``benchmarks/calibration.py`` from the clean victims of the zoo's calibration half; a test compares it with the
record. For each test and kind: location and scale of a Gumbel distribution, the law of the largest of many values,
fitted to the largest value of each clean victim. ``source`` is not searched with ten classes, so its entries are not
fitted: they are wider than those of ``target``, which compares as many values.
"""

NULL: dict[tuple[str, str], tuple[float, float]] = {
    ("mixed", "additive"): (0.201, 0.196),
    ("mixed", "patch"): (0.239, 0.185),
    ("mixed", "warp"): (0.29, 0.14),
    ("pair", "additive"): (0.344, 0.153),
    ("pair", "patch"): (0.723, 0.19),
    ("target", "additive"): (0.387, 0.147),
    ("target", "patch"): (0.555, 0.182),
    ("target", "warp"): (0.32, 0.105),
    ("source", "patch"): (0.7, 0.2),
    ("source", "additive"): (0.4, 0.1),
}

CLASSES, PROBES = 10, 5
"""Of the scans that the null was fitted to; the largest of more values is larger."""

TESTS = 3.49
"""How many independent tests there are in effect: those of a scan are related, since a network that is easily moved in
one way is so in others."""
