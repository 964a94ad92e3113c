"""Downstream loss recovered and the share of alive latents against compute (and l0, where it is not fixed)."""

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.loss_vs_compute import size_curves

L0_SPREAD = 1.05


def draw(table: pd.DataFrame, fits: dict) -> Figure:
    """x: flops_dense (FLOPs), log; y: ce_recovered (fraction), n_alive / n_latents (fraction), l0 (latents per token)."""
    rows = table[(table["state"] == "done") & table["target_flops"].notna()].copy()
    rows["alive_fraction"] = rows["n_alive"] / rows["n_latents"]
    windows = rows["alive_window_tokens"].dropna().unique()
    window = f"\nin the first {windows[0]:,.0f} held-out tokens" if len(windows) == 1 else ""
    shown = [
        ("ce_recovered", "LM loss recovered (fraction)"),
        ("alive_fraction", f"alive latents / n_latents{window}"),
    ]
    l0 = rows["l0"][rows["l0"] > 0]
    if len(l0) and l0.max() > L0_SPREAD * l0.min():
        shown.append(("l0", "$L_0$, active latents per token"))
    figure, axes = style.panels(len(shown), 4.0 * len(shown) + 1.2, 4.2)
    handles = []
    for ax, (column, label) in zip(axes, shown, strict=True):
        ax.set_xscale("log")
        ax.set_xlabel(style.X_COMPUTE)
        ax.set_ylabel(label)
        known = rows[rows[column].notna()]
        if known.empty:
            style.nothing_yet(ax, "not measured yet")
        else:
            found = size_curves(ax, known, column, fits["axes"]["y"])
            handles = max(handles, found, key=len)
    if len(shown) == 3:
        style.log_y(axes[2], l0.to_numpy(float))
    style.legend_right(axes[-1], handles, "dictionary size\nn_latents")
    return figure
