"""The doctor: a machine, a run before it starts, a run from its records. A check is a function."""
