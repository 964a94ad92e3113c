"""Kinds of SAE at the same l0: which reconstructs best at each dictionary size, and whether seeds can tell."""

import pandas as pd

from analysis.firing import chosen
from analysis.frontiers import MATCHED, refuse_mixed_kinds


def matched_l0(table: pd.DataFrame, y: str = "fvu") -> dict:
    """{"y", "wanted_l0", "sizes": [{"n_latents", "kinds": [{"kind", "estimate", "lo", "hi", "l0", "seeds"}]}]}, best kind first.

    Of the runs that stand for their sizes (firing.chosen: one wanted l0, the best learning rate of each cell). estimate is the
    mean of y over seeds, lo and hi the least and the most, None with one seed; l0 is the mean measured one. Cells whose l0 is
    further than MATCHED from the wanted one are left out (short runs end before a penalty is solved for), and sizes with one kind
    left. Errors: `ValueError` where nothing is left to compare, or with several hooks, or recipes of a kind.
    """
    rows, wanted = chosen(table[(table["state"] == "done") & (table[y] > 0)])
    if wanted is None:
        raise ValueError("Kinds are compared at one l0, and these runs were trained for none: set sae.k or sae.target_l0.")
    refuse_mixed_kinds(rows)
    sizes = []
    for n, group in rows.groupby("n_latents"):
        kinds = [_cell(kind, cell, y) for kind, cell in group.groupby("kind")]
        kinds = [one for one in kinds if abs(one["l0"] / wanted - 1) <= MATCHED]
        if len(kinds) > 1:
            sizes.append({"n_latents": int(n), "kinds": sorted(kinds, key=lambda one: one["estimate"])})
    if not sizes:
        raise ValueError(f"No size has two kinds within {MATCHED:.0%} of the wanted l0 {wanted:g}: train longer, or begin the "
                         "search for the penalty nearer (sae.sparsity_coeff).")  # fmt: skip
    return {"y": y, "wanted_l0": wanted, "sizes": sizes}


def _cell(kind: str, rows: pd.DataFrame, y: str) -> dict:
    several = len(rows) > 1
    return {"kind": str(kind), "estimate": float(rows[y].mean()), "lo": float(rows[y].min()) if several else None,
            "hi": float(rows[y].max()) if several else None, "l0": float(rows["l0"].mean()), "seeds": len(rows)}  # fmt: skip


def answer(block: dict) -> str:
    """In one sentence the best kind of each size, with the kinds that its seeds do not tell from it."""
    parts = []
    for size in block["sizes"]:
        best = size["kinds"][0]
        near = [one["kind"] for one in size["kinds"][1:] if None in (best["hi"], one["lo"]) or one["lo"] <= best["hi"]]
        beside = f", within the seeds' spread of {' and '.join(near)}" if near and best["hi"] is not None else ""
        parts.append(f"{best['kind']} at {size['n_latents']:,} latents ({best['estimate']:#.3g}{beside})")
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    orders = {tuple(one["kind"] for one in size["kinds"]) for size in block["sizes"]}
    order = "" if len(parts) == 1 else f" The order of kinds {'changes' if len(orders) > 1 else 'does not change'} with size."
    return f"At an l0 of {block['wanted_l0']:g} the lowest {block['y']} is that of {listed}.{order}"


def lines(block: dict) -> tuple[list[str], list[list[str]]]:
    """(heads, rows) of a table: a row per kind, a column per size, with least and most over seeds and the measured l0."""
    names = {one["kind"]: None for size in reversed(block["sizes"]) for one in size["kinds"]}  # best first at the largest size
    found = {(one["kind"], size["n_latents"]): one for size in block["sizes"] for one in size["kinds"]}
    heads = [f"{size['n_latents']:,} latents" for size in block["sizes"]]
    return heads, [[kind, *(_said(found.get((kind, size["n_latents"]))) for size in block["sizes"])] for kind in names]


def _said(one: dict | None) -> str:
    if one is None:
        return "-"
    span = "" if one["lo"] is None else f" [{one['lo']:#.3g}, {one['hi']:#.3g}]"
    return f"{one['estimate']:#.3g}{span}, l0 {one['l0']:#.3g}"
