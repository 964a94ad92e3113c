"""k-sparse probes: accuracy against dictionary size, beside raw activations and untrained dictionaries."""

from matplotlib.figure import Figure

from analysis.figures import style


def draw(probing: dict) -> Figure:
    """`probing` is probing.json. x: n_latents, log; y: mean accuracy on unseen documents, one line per k, bars two standard
    errors over concepts; dotted: untrained; grey: k coordinates (dotted) and all of them (solid)."""
    figure, (ax,) = style.panels(1, 6.4, 4.4)
    found = {(s["dictionary"], s["n_latents"], s["k"]): s for s in probing["summary"]}
    sizes = sorted({n for kind, n, _ in found if kind == "trained"})
    colours = style.ladder(probing["ks"])
    for k in probing["ks"]:
        for kind, look, label in (("trained", "o-", f"{k} latent{'s' * (k > 1)}"), ("untrained", "o:", None)):
            line = [found[kind, n, k] for n in sizes if (kind, n, k) in found]
            bars = [2 * (s["accuracy_se"] or 0) for s in line]
            ax.errorbar([s["n_latents"] for s in line], [s["accuracy"] for s in line], bars, fmt=look, color=colours[k],
                        markersize=4, linewidth=1.4, elinewidth=0.8, capsize=2, label=label)
    for s in probing["summary"]:
        if s["dictionary"] == "activations":
            ax.axhline(s["accuracy"], color=style.QUIET, linewidth=1.2, label=f"all {s['n_latents']} activations")
        elif s["dictionary"] == "neurons":
            ax.axhline(s["accuracy"], color=colours[s["k"]], linewidth=0.8, linestyle=(0, (1, 4)))
    ax.plot([], [], "o:", color=style.QUIET, markersize=4, label="untrained")
    ax.plot([], [], color=style.QUIET, linewidth=0.8, linestyle=(0, (1, 4)), label="as many coordinates")
    ax.set_xscale("log")
    style.size_ticks(ax.xaxis, sizes)
    lowest = min(s["accuracy"] - 2 * (s["accuracy_se"] or 0) for s in probing["summary"])
    ax.set(xlabel="dictionary size, n_latents", ylabel="accuracy on unseen documents (guessing: 0.5)", ylim=(lowest - 0.02, 1.0))
    figure.legend(loc="outside lower center", ncols=3)
    return figure
