"""How small triggers get in honest classifiers: what every verdict is measured against.

Made by ``benchmarks/calibration.py`` from the clean victims of the zoo's calibration half; a test compares it with the
record. For each test and kind, or the two that are judged together: the location of a Gumbel distribution, the law of
the largest of many values, and its scales above and below there, fitted to the largest value of each clean victim.
"""

NULL: dict[tuple[str, str], tuple[float, float, float]] = {
    ("margin", "margin"): (0.354, 0.131, 0.14),
    ("mixed", "additive"): (0.219, 0.147, 0.229),
    ("mixed", "blend"): (-0.204, 0.112, 0.376),
    ("mixed", "patch"): (0.531, 0.254, 0.301),
    ("mixed", "patch+additive"): (0.415, 0.15, 0.193),
    ("mixed", "warp"): (0.266, 0.378, 0.208),
    ("pair", "additive"): (0.713, 0.128, 0.138),
    ("pair", "patch"): (1.141, 0.276, 0.336),
    ("pair", "patch+additive"): (0.885, 0.172, 0.218),
    ("single", "additive"): (0.428, 0.198, 0.437),
    ("single", "blend"): (0.207, 0.323, 0.122),
    ("single", "patch"): (0.361, 0.261, 0.233),
    ("single", "patch+additive"): (0.322, 0.152, 0.457),
    ("single", "patch+additive+blend"): (0.261, 0.182, 0.375),
    ("target", "additive"): (0.055, 0.105, 0.037),
    ("target", "blend"): (0.098, 0.14, 0.114),
    ("target", "patch"): (0.06, 0.161, 0.052),
    ("target", "patch+additive"): (0.043, 0.123, 0.068),
    ("target", "warp"): (0.084, 0.188, 0.062),
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

TESTS, TESTS_OF_MANY = 8.16, 8.87
"""How many independent tests there are in effect: those of a scan are related, since a network that is easily moved in
one way is so in others."""

FEWER = 1.7
"""By how much more the values of networks with fewer classes than ``CLASSES`` lie apart above the location."""
