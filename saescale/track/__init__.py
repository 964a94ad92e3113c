"""Dashboards elsewhere: the store, mirrored into wandb. Only client.py and workspace.py import what wandb publishes."""
