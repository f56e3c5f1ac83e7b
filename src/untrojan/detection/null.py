"""How small triggers get in honest classifiers: what every verdict is measured against.

Made by ``benchmarks/calibration.py`` from the clean victims of the zoo's calibration half; a test compares it with the
record. For each test and kind, or the two that are judged together: the location of a Gumbel distribution, the law of
the largest of many values, and its scales above and below there, fitted to the largest value of each clean victim.
"""

NULL: dict[tuple[str, str], tuple[float, float, float]] = {
    ("margin", "margin"): (0.394, 0.125, 0.17),
    ("mixed", "additive"): (0.267, 0.134, 0.232),
    ("mixed", "blend"): (-0.211, 0.109, 0.369),
    ("mixed", "patch"): (0.531, 0.228, 0.281),
    ("mixed", "patch+additive"): (0.415, 0.145, 0.179),
    ("mixed", "warp"): (0.266, 0.393, 0.203),
    ("pair", "additive"): (0.714, 0.168, 0.121),
    ("pair", "patch"): (1.141, 0.304, 0.316),
    ("pair", "patch+additive"): (0.885, 0.2, 0.216),
    ("single", "additive"): (0.252, 0.269, 0.208),
    ("single", "blend"): (0.386, 0.251, 0.303),
    ("single", "patch"): (0.369, 0.222, 0.281),
    ("single", "patch+additive"): (0.251, 0.218, 0.271),
    ("single", "patch+additive+blend"): (0.274, 0.187, 0.294),
    ("target", "additive"): (0.004, 0.149, 0.163),
    ("target", "blend"): (0.104, 0.143, 0.176),
    ("target", "patch"): (0.104, 0.152, 0.226),
    ("target", "patch+additive"): (-0.002, 0.136, 0.174),
    ("target", "warp"): (0.082, 0.16, 0.062),
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

TESTS, TESTS_OF_MANY = 9.77, 8.87
"""How many independent tests there are in effect: those of a scan are related, since a network that is easily moved in
one way is so in others."""

FEWER = 1.2
"""By how much more the values of networks with fewer classes than ``CLASSES`` lie apart above the location."""
