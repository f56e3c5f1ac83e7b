"""How small triggers get in honest classifiers: what every verdict is measured against.

Made by ``benchmarks/calibration.py`` from the clean victims of the zoo's calibration half; a test compares it with the
record. For each test and kind, or the two that are judged together: the location of a Gumbel distribution, the law of
the largest of many values, and its scales above and below there, fitted to the largest value of each clean victim.
"""

NULL: dict[tuple[str, str], tuple[float, float, float]] = {
    ("margin", "margin"): (0.324, 0.151, 0.117),
    ("mixed", "additive"): (0.224, 0.118, 0.223),
    ("mixed", "blend"): (-0.058, 0.066, 0.154),
    ("mixed", "patch"): (0.096, 0.118, 0.29),
    ("mixed", "patch+additive"): (0.145, 0.104, 0.177),
    ("mixed", "warp"): (0.053, 0.123, 0.179),
    ("pair", "additive"): (0.772, 0.09, 0.166),
    ("pair", "patch"): (0.978, 0.212, 0.188),
    ("pair", "patch+additive"): (0.829, 0.118, 0.161),
    ("single", "additive"): (0.369, 0.198, 0.303),
    ("single", "blend"): (0.261, 0.316, 0.153),
    ("single", "patch"): (0.387, 0.235, 0.278),
    ("single", "patch+additive"): (0.393, 0.147, 0.486),
    ("single", "patch+additive+blend"): (0.274, 0.152, 0.466),
    ("target", "additive"): (0.062, 0.1, 0.049),
    ("target", "blend"): (0.123, 0.198, 0.134),
    ("target", "patch"): (0.066, 0.161, 0.049),
    ("target", "patch+additive"): (0.077, 0.108, 0.078),
    ("target", "warp"): (0.079, 0.081, 0.061),
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

TESTS, TESTS_OF_MANY = 8.84, 8.87
"""How many independent tests there are in effect: those of a scan are related, since a network that is easily moved in
one way is so in others."""

TESTS_POWER = 1.127
"""By what power of it the smallest of their p-values counts, with up to 20 classes: with 1 as that of as many
independent ones, with more as rarer than that where it is small."""
