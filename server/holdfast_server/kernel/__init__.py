"""The decision kernel seen from Python: its source text, its wire form and an in-process host."""
