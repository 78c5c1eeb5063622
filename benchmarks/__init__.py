"""Slipway measured against what one could use in its place: `make bench`."""
