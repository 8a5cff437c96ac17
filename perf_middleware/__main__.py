"""`python -m perf_middleware` is the console script without its installation."""

from __future__ import annotations

import sys

from perf_middleware.cli import main

if __name__ == "__main__":
    sys.exit(main())
