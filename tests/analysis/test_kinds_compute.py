"""L(n, k), and kinds of SAE at equal compute: known surfaces and multiples are found again."""

import math

import numpy as np
import pandas as pd
import pytest

from analysis import figures
from analysis.frontiers import frontier, frontiers
from analysis.size_and_k import size_and_k

D_IN = 64


def rows(kind, sizes, l0s, horizons, loss, dear=1.0):
    """Runs of one kind: fvu = loss(n=, l0=, flops=), and executed FLOPs of `dear` times a tenth of the dense ones."""
    out = []
    for n in sizes:
        for l0 in l0s:
            for t in horizons:
                for seed in (0, 1, 2):
                    flops = 12 * D_IN * n * t
                    fvu = loss(n=n, l0=l0, flops=flops) * math.exp(np.random.default_rng(len(out)).normal(0, 1e-3))
                    out.append({"run_id": f"{kind}{n}-{l0}-{t}-{seed}", "trunk_id": f"{kind}{n}-{l0}-{seed}", "kind": kind,
                                "n_latents": n, "k": float(l0), "l0": float(l0), "n_tokens": t, "seed": seed, "state": "done",
                                "objective": fvu, "fvu": fvu, "flops_dense": flops, "flops_measured": 0.1 * dear * flops,
                                "d_in": D_IN, "lr": 1e-3, "target_flops": math.nan})  # fmt: skip
    return pd.DataFrame(out)


def test_a_surface_in_size_and_k_is_found_again():
    def law(n, l0, **_):
        return math.exp(-0.3 * math.log(l0) - 0.2 * math.log(n) - 0.05 * math.log(l0) * math.log(n))

    table = pd.concat([rows("topk", [256, 512, 1024, 2048], [8, 16, 32], [65536], law),
                       rows("batchtopk", [256], [8], [65536], law)])  # fmt: skip
    block = size_and_k(table, draws=100)
    assert block["kind"] == "topk" and block["law"] == "nk_interaction"
    assert block["fit"]["params"]["gamma"] == pytest.approx(-0.05, abs=0.01)
    with pytest.raises(ValueError, match="3 sizes with 3 values of k"):
        size_and_k(table[table["n_latents"] == 256])
    drawn = figures.draw("size_by_k", table, {"size_by_k": block})
    assert len(drawn.axes[0].lines) == 3
    slow = table.assign(run_id=table["run_id"] + "-slow", lr=1e-6, fvu=2 * table["fvu"])
    again = figures.draw("size_by_k", pd.concat([table, slow]), {"size_by_k": block})  # of several rates the best is shown
    one, other = ([line.get_ydata().tolist() for line in figure.axes[1].lines] for figure in (drawn, again))
    assert one == other and one


def test_a_kind_that_needs_twice_the_compute_is_told_so_by_either_count():
    cheap = rows("topk", [256, 512], [16], [2**14, 2**15, 2**16], lambda flops, **_: (flops / 1e9) ** -0.2)
    dear = rows("gated", [256, 512], [16], [2**14, 2**15, 2**16], lambda flops, **_: (flops / 2e9) ** -0.2, dear=3)
    table = pd.concat([cheap, dear])
    found = frontiers(table)
    dense, measured = (found["kinds"]["gated"][cost]["multiple"] for cost in ("flops_dense", "flops_measured"))
    assert dense["estimate"] == pytest.approx(2, rel=0.05) and dense["lo"] <= dense["estimate"] <= dense["hi"]
    assert measured["estimate"] == pytest.approx(6, rel=0.05)
    assert found["kinds"]["topk"]["flops_dense"]["multiple"]["estimate"] == 1
    with pytest.raises(ValueError, match="several kinds"):
        frontiers(cheap)
    assert len(figures.draw("equal_compute", table, {"equal_compute": found}).axes) == 2


def test_cells_that_missed_their_l0_are_on_no_frontier():
    cheap = rows("topk", [256, 512], [16], [2**14, 2**15, 2**16], lambda flops, **_: (flops / 1e9) ** -0.2)
    other = rows("gated", [256, 512], [16], [2**14, 2**15, 2**16], lambda flops, **_: (flops / 1e9) ** -0.2)
    dense = (other["n_tokens"] == 2**14).to_numpy()
    other = other.assign(k=math.nan, target_l0=16.0, l0=np.where(dense, 40.0, 16.5), fvu=other["fvu"] * np.where(dense, 0.5, 1))
    found = frontiers(pd.concat([cheap, other]))["kinds"]["gated"]["flops_dense"]["multiple"]
    assert found["estimate"] == pytest.approx(1, rel=0.05)


def test_a_cell_tried_at_several_rates_stands_on_a_frontier_with_its_best():
    table = pd.concat([rows(kind, [256, 512], [16], [2**14, 2**15, 2**16], lambda flops, **_: (flops / 1e9) ** -0.2)
                       for kind in ("topk", "gated")])  # fmt: skip
    slow = table.assign(run_id=table["run_id"] + "-slow", lr=1e-5, fvu=2 * table["fvu"])
    assert frontiers(pd.concat([table, slow])) == frontiers(table)
    drawn = [figures.draw("equal_compute", t, {"equal_compute": frontiers(table)}) for t in (table, pd.concat([table, slow]))]
    one, other = ([line.get_ydata().tolist() for line in figure.axes[0].lines] for figure in drawn)
    assert one == other


def test_kinds_at_several_wanted_l0_have_no_frontier_in_common():
    def table(l0s):
        return pd.concat([rows(kind, [256, 512], l0s, [2**14, 2**15], lambda l0, flops, **_: (l0 * flops / 1e9) ** -0.2)
                          for kind in ("topk", "gated")])  # fmt: skip

    with pytest.raises(ValueError, match="mixes wanted l0 16, 32"):
        frontiers(table([16, 32]))
    apart = table([16])
    with pytest.raises(ValueError, match="mixes hook_name a, b"):
        frontiers(apart.assign(hook_name=np.where(apart["kind"] == "topk", "a", "b")))


def test_a_frontier_keeps_only_cells_that_are_better_than_all_cheaper_ones():
    table = rows("topk", [64, 128], [8], [1000, 2000], lambda **_: 1.0)
    c, y = frontier(table.assign(fvu=[0.5] * 6 + [0.7] * 3 + [0.4] * 3), "flops_dense", "fvu")
    assert np.exp(y) == pytest.approx([0.5, 0.4]) and np.exp(c) == pytest.approx([12 * 64 * 64e3, 12 * 64 * 256e3])
