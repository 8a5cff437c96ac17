"""Nobody notices us: with us on, no test of another project newly fails.

A part of each suite is run every time; `scripts/test --all` runs them whole.
"""

from __future__ import annotations

import json

import conftest as foreign
import pytest
