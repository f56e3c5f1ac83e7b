"""How small triggers get in honest classifiers: what every verdict is measured against.

Made by ``benchmarks/calibration.py`` from the clean victims of the zoo's calibration half; a test compares it with the
record. For each test and kind, or the two that are judged together: the location of a Gumbel distribution, the law of
the largest of many values, and its scales above and below there, fitted to the largest value of each clean victim.
``source`` is not searched with ten classes, so its entries are not fitted: they are wider than those of ``target``,
which compares as many values.
"""

NULL: dict[tuple[str, str], tuple[float, float, float]] = {
    ("margin", "margin"): (0.324, 0.149, 0.117),
    ("mixed", "additive"): (0.176, 0.188, 0.18),
    ("mixed", "patch"): (0.237, 0.143, 0.223),
    ("mixed", "patch+additive"): (0.237, 0.127, 0.171),
    ("mixed", "warp"): (0.277, 0.139, 0.151),
    ("pair", "additive"): (0.35, 0.09, 0.083),
    ("pair", "patch"): (0.698, 0.214, 0.157),
    ("pair", "patch+additive"): (0.447, 0.112, 0.106),
    ("target", "additive"): (0.38, 0.151, 0.173),
    ("target", "patch"): (0.568, 0.181, 0.229),
    ("target", "patch+additive"): (0.469, 0.145, 0.187),
    ("target", "warp"): (0.323, 0.101, 0.107),
    ("source", "patch+additive"): (0.55, 0.15, 0.15),
    ("source", "patch"): (0.7, 0.2, 0.2),
    ("source", "additive"): (0.4, 0.1, 0.1),
}

CLASSES, PROBES = 10, 5
"""Of the scans that the null was fitted to; the largest of more values is larger."""

TESTS = 4.59
"""How many independent tests there are in effect: those of a scan are related, since a network that is easily moved in
one way is so in others."""
