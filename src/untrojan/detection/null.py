"""How small triggers get in honest classifiers: what every verdict is measured against.

Made by ``benchmarks/calibration.py`` from the clean victims of the zoo's calibration half; a test compares it with the
record. For each test and kind, or the two that are judged together: the location of a Gumbel distribution, the law of
the largest of many values, and its scales above and below there, fitted to the largest value of each clean victim.
``source`` is not searched with ten classes, so its entries are not fitted: they are wider than those of ``target``,
which compares as many values.
"""

NULL: dict[tuple[str, str], tuple[float, float, float]] = {
    ("mixed", "additive"): (0.201, 0.196, 0.196),
    ("mixed", "patch"): (0.239, 0.185, 0.185),
    ("mixed", "warp"): (0.29, 0.14, 0.14),
    ("pair", "additive"): (0.344, 0.153, 0.153),
    ("pair", "patch"): (0.723, 0.19, 0.19),
    ("target", "additive"): (0.387, 0.147, 0.147),
    ("target", "patch"): (0.555, 0.182, 0.182),
    ("target", "warp"): (0.32, 0.105, 0.105),
    ("mixed", "patch+additive"): (0.267, 0.133, 0.183),
    ("pair", "patch+additive"): (0.444, 0.134, 0.075),
    ("target", "patch+additive"): (0.541, 0.1, 0.229),
    ("source", "patch+additive"): (0.55, 0.15, 0.15),
    ("source", "patch"): (0.7, 0.2, 0.2),
    ("source", "additive"): (0.4, 0.1, 0.1),
}

CLASSES, PROBES = 10, 5
"""Of the scans that the null was fitted to; the largest of more values is larger."""

TESTS = 3.49
"""How many independent tests there are in effect: those of a scan are related, since a network that is easily moved in
one way is so in others."""
