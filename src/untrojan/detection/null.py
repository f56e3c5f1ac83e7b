"""How small triggers get in honest classifiers: what every verdict is measured against.

Made by ``benchmarks/calibration.py`` from the clean victims of the zoo's calibration half; a test compares it with the
record. For each test and kind, or the two that are judged together: the location of a Gumbel distribution, the law of
the largest of many values, and its scales above and below there, fitted to the largest value of each clean victim.
"""

NULL: dict[tuple[str, str], tuple[float, float, float]] = {
    ("margin", "margin"): (0.334, 0.206, 0.198),
    ("mixed", "additive"): (0.443, 0.141, 0.269),
    ("mixed", "blend"): (-0.219, 0.107, 0.366),
    ("mixed", "patch"): (0.205, 0.23, 0.277),
    ("mixed", "patch+additive"): (0.292, 0.204, 0.165),
    ("mixed", "warp"): (0.185, 0.345, 0.191),
    ("pair", "additive"): (0.6, 0.153, 0.191),
    ("pair", "patch"): (0.897, 0.313, 0.381),
    ("pair", "patch+additive"): (0.701, 0.207, 0.231),
    ("single", "additive"): (0.42, 0.25, 0.325),
    ("single", "blend"): (0.345, 0.26, 0.231),
    ("single", "patch"): (0.452, 0.433, 0.306),
    ("single", "patch+additive"): (0.322, 0.152, 0.457),
    ("single", "patch+additive+blend"): (0.35, 0.266, 0.317),
    ("target", "additive"): (0.111, 0.116, 0.083),
    ("target", "blend"): (0.14, 0.195, 0.18),
    ("target", "patch"): (0.067, 0.252, 0.051),
    ("target", "patch+additive"): (0.084, 0.19, 0.101),
    ("target", "warp"): (0.082, 0.136, 0.066),
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
    ("target", "warp"): (0.033, 0.417, 0.031),
}
"""The same of networks of more than 20 classes, whose sizes are compared in another way (``anomaly.usual``); where it
says nothing, ``NULL`` holds."""

CLASSES, PROBES, PROBES_OF_MANY = 10, 4, 5
"""How many values, in effect, they were fitted to the largest of; the largest of more is larger."""

TESTS, TESTS_OF_MANY = 5.59, 8.87
"""How many independent tests there are in effect: those of a scan are related, since a network that is easily moved in
one way is so in others."""
