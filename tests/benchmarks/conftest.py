"""`benchmarks` is no part of the package: what it lies in must be a place to import from."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
