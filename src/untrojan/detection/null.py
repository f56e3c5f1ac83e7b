"""How small triggers get in honest classifiers: what every verdict is measured against.

Made by ``benchmarks/calibration.py`` from the clean victims of the zoo's calibration half; a test compares it with the
record. For each test and kind, or the two that are judged together: the location of a Gumbel distribution, the law of
the largest of many values, and its scales above and below there, fitted to the largest value of each clean victim.
"""

NULL: dict[tuple[str, str], tuple[float, float, float]] = {
    ("margin", "margin"): (0.332, 0.143, 0.117),
    ("mixed", "additive"): (0.289, 0.166, 0.257),
    ("mixed", "blend"): (-0.058, 0.064, 0.153),
    ("mixed", "patch"): (0.196, 0.158, 0.23),
    ("mixed", "patch+additive"): (0.247, 0.135, 0.181),
    ("mixed", "warp"): (0.229, 0.139, 0.188),
    ("pair", "additive"): (0.762, 0.106, 0.154),
    ("pair", "patch"): (0.994, 0.198, 0.221),
    ("pair", "patch+additive"): (0.849, 0.117, 0.199),
    ("single", "additive"): (0.376, 0.182, 0.326),
    ("single", "blend"): (0.261, 0.318, 0.145),
    ("single", "patch"): (0.438, 0.214, 0.35),
    ("single", "patch+additive"): (0.393, 0.147, 0.486),
    ("single", "patch+additive+blend"): (0.233, 0.169, 0.534),
    ("target", "additive"): (0.366, 0.154, 0.158),
    ("target", "blend"): (0.097, 0.201, 0.121),
    ("target", "patch"): (0.566, 0.178, 0.238),
    ("target", "patch+additive"): (0.326, 0.126, 0.164),
    ("target", "warp"): (0.364, 0.1, 0.144),
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

TESTS, TESTS_OF_MANY = 5.36, 8.87
"""How many independent tests there are in effect: those of a scan are related, since a network that is easily moved in
one way is so in others."""
