"""How latents split as dictionaries grow, and which latents of a larger dictionary are new."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style

THRESHOLD = 0.7
COUNTS = ("0", "1", "2", "3-4", "5-8", "9-16", "17+")


def draw(splitting: dict) -> Figure:
    """`splitting` is splitting.json. Left: share of the smallest dictionary's alive latents by how many latents of a larger one
    point their way (cosine of 0.7 or more). Middle: novel share of a larger dictionary's latents against its size, one line per
    smaller dictionary, dotted: untrained. Right: share novel by cosine to the nearest latent of the next smaller one."""
    figure, axes = style.panels(3, 13.2, 4.2)
    pairs = splitting["pairs"]
    sizes = sorted({pair[side] for pair in pairs for side in ("small", "large")})
    colours = style.ladder(sizes)
    _children(axes[0], [p for p in pairs if p["small"] == sizes[0]], colours)
    _novel(axes[1], pairs, colours)
    below = dict(zip(sizes[1:], sizes, strict=False))
    _by_cosine(axes[2], [p for p in pairs if p["trained"] and p["small"] == below[p["large"]]], colours)
    return figure


def _children(ax: Axes, pairs: list[dict], colours: dict) -> None:
    handles = []
    for pair in pairs:
        per = next(p for p in pair["latents_per_small"] if p["threshold"] == THRESHOLD)
        if not pair["n_small_alive"]:
            continue
        share = np.array(per["counts"]) / pair["n_small_alive"]
        look = {"color": colours[pair["large"]], "linestyle": "-" if pair["trained"] else ":", "marker": "o", "markersize": 4}
        ax.plot(range(len(share)), share, linewidth=1.4, **look)
        if pair["trained"]:
            handles.append(Line2D([], [], label=f"{pair['large']:,} (mean {per['mean']:.2f})", **look))
    small = pairs[0]["small"] if pairs else 0
    ax.set_xticks(range(len(COUNTS)), COUNTS)
    ax.set(xlabel=f"latents of the larger dictionary at cosine ≥ {THRESHOLD:g}", ylabel="share of the smaller's alive latents",
           title=f"splitting of the {small:,} latents", ylim=(-0.02, 1.02))
    if handles:
        handles.append(Line2D([], [], color=style.QUIET, linestyle=":", label="untrained larger one"))
        ax.legend(handles=handles, title="larger dictionary", loc="upper right")


def _novel(ax: Axes, pairs: list[dict], colours: dict) -> None:
    handles = []
    for small in sorted({p["small"] for p in pairs}):
        for trained in (True, False):
            line = sorted((p["large"], p["novel_fraction"]) for p in pairs
                          if p["small"] == small and p["trained"] == trained and p["novel_fraction"] is not None)
            look = {"color": colours[small], "linestyle": "-" if trained else ":", "marker": "o", "markersize": 4}
            ax.plot([n for n, _ in line], [share for _, share in line], linewidth=1.4, **look)
        handles.append(Line2D([], [], color=colours[small], marker="o", markersize=4, label=f"{small:,}"))
    ax.set_xscale("log")
    style.size_ticks(ax.xaxis, sorted({p["large"] for p in pairs}))
    ax.set(xlabel="n_latents of the larger dictionary", ylabel="share of its alive latents that are novel",
           title="novel: added alone, it lowers the error", ylim=(-0.02, 1.02))
    handles.append(Line2D([], [], color=style.QUIET, linestyle=":", label="untrained larger one"))
    ax.legend(handles=handles, title="added to", loc="best")


def _by_cosine(ax: Axes, pairs: list[dict], colours: dict) -> None:
    """A share per bin with at least ten latents."""
    for pair in pairs:
        novel, again = (np.array(pair["by_cosine"][kind], float) for kind in ("novel", "reconstruction"))
        total = novel + again
        edges = np.array(pair["cosine_edges"])
        middle = (edges[1:] + edges[:-1]) / 2
        many = total >= 10
        ax.plot(middle[many], novel[many] / total[many], color=colours[pair["large"]], marker="o", markersize=3.5, linewidth=1.2,
                label=f"{pair['large']:,} beside {pair['small']:,}")
    ax.set(xlabel="cosine to the nearest latent of the next smaller dictionary", ylabel="share that is novel",
           title="novelty by direction", xlim=(0, 1), ylim=(-0.02, 1.02))
    if pairs:
        ax.legend(loc="best")
