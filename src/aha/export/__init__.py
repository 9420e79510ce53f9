"""Writes a trained model for other programs, with its model card."""
