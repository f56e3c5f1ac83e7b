"""How small triggers get in honest classifiers: what every verdict is measured against.

Made by ``benchmarks/calibration.py`` from the clean victims of the zoo's calibration half; a test compares it with the
record. For each test and kind, or the two that are judged together: the location of a Gumbel distribution, the law of
the largest of many values, and its scales above and below there, fitted to the largest value of each clean victim.
"""

NULL: dict[tuple[str, str], tuple[float, float, float]] = {
    ("margin", "margin"): (0.34, 0.138, 0.113),
    ("mixed", "additive"): (0.269, 0.172, 0.273),
    ("mixed", "patch"): (0.169, 0.153, 0.216),
    ("mixed", "patch+additive"): (0.213, 0.134, 0.183),
    ("mixed", "warp"): (0.271, 0.145, 0.169),
    ("pair", "additive"): (0.762, 0.123, 0.171),
    ("pair", "patch"): (0.994, 0.199, 0.251),
    ("pair", "patch+additive"): (0.849, 0.123, 0.213),
    ("single", "additive"): (0.384, 0.166, 0.272),
    ("single", "patch"): (0.464, 0.182, 0.328),
    ("single", "patch+additive"): (0.37, 0.146, 0.22),
    ("target", "additive"): (0.34, 0.165, 0.131),
    ("target", "patch"): (0.551, 0.175, 0.236),
    ("target", "patch+additive"): (0.327, 0.121, 0.169),
    ("target", "warp"): (0.326, 0.085, 0.135),
}

NULL_OF_MANY: dict[tuple[str, str], tuple[float, float, float]] = {
    ("margin", "margin"): (0.187, 0.179, 0.026),
    ("mixed", "additive"): (-0.948, 0.187, 0.26),
    ("mixed", "patch"): (-1.027, 0.47, 0.155),
    ("mixed", "patch+additive"): (-0.857, 0.174, 0.207),
    ("source", "additive"): (0.341, 0.215, 0.516),
    ("source", "patch"): (0.493, 0.511, 0.322),
    ("source", "patch+additive"): (0.627, 0.19, 0.597),
    ("target", "additive"): (0.507, 0.088, 0.219),
    ("target", "patch"): (0.749, 0.199, 0.334),
    ("target", "patch+additive"): (0.614, 0.09, 0.285),
}
"""The same of networks of more than 20 classes, whose sizes are compared in another way (``anomaly.usual``); where it
says nothing, ``NULL`` holds."""

CLASSES, PROBES, PROBES_OF_MANY = 10, 4, 5
"""How many values, in effect, they were fitted to the largest of; the largest of more is larger."""

TESTS, TESTS_OF_MANY = 7.26, 8.87
"""How many independent tests there are in effect: those of a scan are related, since a network that is easily moved in
one way is so in others."""
