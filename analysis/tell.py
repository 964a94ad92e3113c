"""Iso-FLOP analyses, allocations and predictions as a page of text, in the manner of a statistics package."""

from typing import TYPE_CHECKING

from analysis.codes import STATUSES, WARNINGS

if TYPE_CHECKING:
    from analysis.allocate import Allocation
    from analysis.forecast import Prediction
    from analysis.isoflops import IsoFlop

_WIDTH = 96
_SHAPES, _SCALES = {2: "parabola", 3: "cubic"}, {"loss": "the loss", "ln_loss": "ln loss"}


def isoflop_text(found: "IsoFlop") -> str:
    used = found.conventions
    shape = f"{_SHAPES[used['degree']]} in ln N of {_SCALES[used['scale']]}"
    good = sum(budget["status"] == "bracketed" for budget in found.budgets)
    head = [f"iso-FLOP: {shape}" + (f", {used['sizes']} sizes around the lowest" if used["sizes"] else "")]
    head.append(f"{used['compute']}    budgets {good} of {len(found.budgets)} resolved    data {found.data_hash}")
    rows = [f"{'C':>10}{'sizes':>7}{'N*':>12}{'95 %':>26}{'D*':>12}{'loss':>10}  status", *map(_budget, found.budgets)]
    tail = ["no exponent: fewer than 3 resolved budgets"]
    if found.lines:
        tail = [_bounded(f"{axis}* ~ C^{name}      {name}", found.exponent(axis)) for name, axis in (("a", "N"), ("b", "D"))]
        tail.append(f"a + b = {found.lines['N'].slope + found.lines['D'].slope:.4f}, fitted apart")
    return _page(head, rows, tail, found.warnings)


def _budget(budget: dict) -> str:
    n, d, low = budget["N"], budget["D"], budget["loss"]
    cells = [f"{n['estimate']:12.5g}{_pair(n):>26}" if n else f"{'-':>12}{'':26}"]
    cells.append(f"{d['estimate']:12.5g}" if d else f"{'-':>12}")
    cells.append(f"{low:10.5g}" if low else f"{'-':>10}")
    status = "resolved" if n else STATUSES.get(budget["status"], budget["status"])
    return f"{budget['flops']:10.3g}{budget['n_sizes']:7d}{''.join(cells)}  {status}"


def allocation_text(found: "Allocation") -> str:
    head = [f"split of compute, {found.cost.words}; prices at {found.flops:.3g} FLOPs on the surface {found.fit.law.name}"]
    rows = [f"{'':12}{'a (N)':>9}{'95 %':>20}{'b (D)':>9}{'N':>12}{'D':>12}{'excess loss':>13}{'wasted C':>10}"]
    for name, one in found.estimates.items():
        if "a" not in one:
            rows.append(f"{name:12}-  {one['reason']}")
            continue
        price = found.penalties.get(name)
        rows.append(f"{name:12}{one['a']['estimate']:9.4f}{_pair(one['a'], '.4f'):>20}{one['b']['estimate']:9.4f}"
                    f"{one['N']['estimate']:12.4g}{one['D']['estimate']:12.4g}"
                    + (f"{price['excess_loss']:13.2%}{price['wasted_compute']:10.1%}" if price else ""))  # fmt: skip
    tail = [f"{' - '.join(pair['between'])}: difference of a {pair['estimate']:+.4f}  {_pair(pair, '+.4f')}"
            + ("  DISAGREE" if pair["disagree"] else "") for pair in found.disagreement]  # fmt: skip
    return _page(head, rows, tail, found.warnings)


def prediction_text(found: "Prediction") -> str:
    where = ", ".join(f"{name}={value:.4g}" for name, value in found.at.items())
    head = [f"prediction at {where} by {found.fit.law.name}, fitted to {found.fit.n_rows} rows, data {found.fit.data_hash}"]
    rows = []
    if found.N:
        rows += [_bounded(f"N  by the {found.method} estimate", found.N), _bounded("D", found.D)]
        rows += [_bounded(f"N  by the {name} estimate", value) for name, value in found.others.items()]
    if found.lr:
        rows.append(_bounded("best learning rate", found.lr))
    if found.loss:
        rows.append(_bounded(f"{found.fit.law.y}  of a new run", found.loss))
        curve = {"estimate": found.loss["estimate"], "lo": found.loss["curve_lo"], "hi": found.loss["curve_hi"]}
        rows.append(_bounded(f"{found.fit.law.y}  of the law itself", curve))
    far = ", ".join(f"{name} {value:.2f}" for name, value in found.distance.items() if value > 0)
    tail = [f"extrapolation, decades beyond the fitted range: {far or 'none'}"]
    if found.fit.widening > 1:
        tail.append(f"interval widened {found.fit.widening:.2f} times, as its held-out test needed")
    return _page(head, rows, tail, found.warnings)


def _page(head: list[str], rows: list[str], tail: list[str], codes: list[str]) -> str:
    lines = ["=" * _WIDTH, *head, "-" * _WIDTH, *rows, *(["-" * _WIDTH, *tail] if tail else [])]
    lines += ["-" * _WIDTH, *(f"[{code}] {WARNINGS.get(code, '')}" for code in codes)] if codes else []
    return "\n".join([*lines, "=" * _WIDTH])


def _bounded(name: str, value: dict) -> str:
    return f"{name:34}{value['estimate']:12.6g}   {_pair(value)}"


def _pair(value: dict, spec: str = ".5g") -> str:
    if value["lo"] is None or value["hi"] is None:
        return "no interval"
    return f"{value['lo']:{spec}} to {value['hi']:{spec}}"
