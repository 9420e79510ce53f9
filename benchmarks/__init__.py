"""Measurements. The scripts are run as files; `python -m benchmarks.gpu` is a package."""
