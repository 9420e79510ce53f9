"""What can be measured on a CUDA GPU alone, item by item: `make gpu`. See docs/benchmarks.md."""
