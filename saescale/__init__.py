"""saescale: a scaling-law experiment orchestrator for sparse autoencoders."""

__version__ = "0.1.0"
