"""The mathematics of one sparse autoencoder: model, kinds, losses, optimiser, kernels, export.

Imports nothing else of saescale, only torch, numpy and safetensors.
"""
