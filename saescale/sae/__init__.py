"""The mathematics of one sparse autoencoder: model, kinds, losses, optimiser, kernels, export.

Imports torch, numpy, safetensors, and of saescale the ground floor alone.
"""
