"""Worked examples on real data; they travel with the package, so the demo runs from anywhere."""
