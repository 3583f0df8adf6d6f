"""Figures with intervals, the gate, the model card."""
