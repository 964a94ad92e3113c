"""How close to its name a concept's latent fires, by how strongly: a grade by string match."""

import numpy as np
from matplotlib.figure import Figure

from analysis.figures import style

LOOKS = {"trained": ("-", "o"), "untrained": ("--", "s"), "neurons": (":", "D")}
PANELS = (("at_name", "At the last token of the name"), ("near", "At the name or within 8 tokens"),
          ("in_document", "In a document with the name"))  # fmt: skip


def draw(found: dict) -> Figure:
    """`found` is rubric.json of benchmarks.rubric: share of firings with each grade or better, by strength."""
    figure, axes = style.panels(3, 14.0, 4.2)
    colours = style.ladder([row["n_latents"] for row in found["rows"] if row["dictionary"] != "neurons"])
    keys = list(dict.fromkeys((row["dictionary"], row["n_latents"]) for row in found["rows"]))
    for ax, (name, title) in zip(axes, PANELS, strict=True):
        for kind, size in keys:
            rows = [row for row in found["rows"] if (row["dictionary"], row["n_latents"]) == (kind, size)]
            x = (np.array([row["level"] for row in rows]) + 0.5) / found["levels"]
            y = np.array([row[name] for row in rows])
            ends = np.array([row[f"{name}_interval"] for row in rows])
            dash, marker = LOOKS[kind]
            ax.errorbar(x, y, yerr=np.abs(ends.T - y), linestyle=dash, marker=marker, markersize=4, capsize=2,
                        color=style.QUIET if kind == "neurons" else colours[size], label=f"{kind}, {size:,}")  # fmt: skip
        ax.set(xlabel="activation / maximum of the latent", title=title)
        ax.set_ylim(0, 1.1 * max(row["in_document_interval"][1] for row in found["rows"]))
    axes[0].set_ylabel("share of firings, mean of concepts")
    axes[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure
