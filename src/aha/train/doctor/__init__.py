"""The doctor: a machine, a run before it starts, a run from its records. One check, one function."""
