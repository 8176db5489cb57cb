"""`python -m controller`: the same as the `rl-scaler` command."""

from __future__ import annotations

import sys

from controller.cli import main

if __name__ == "__main__":
    sys.exit(main())
