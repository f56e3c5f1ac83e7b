"""``python -m untrojan``."""

import sys

from untrojan.cli import main

if __name__ == "__main__":
    sys.exit(main())
