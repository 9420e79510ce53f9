"""Next-token training of a base model from nothing."""
