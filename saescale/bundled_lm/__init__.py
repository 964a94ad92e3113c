"""The language model that ships with saescale, and the script that made it (`python -m saescale.bundled_lm.make`)."""
