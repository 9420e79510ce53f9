"""Generation: the Engine protocol and the engines behind it."""
