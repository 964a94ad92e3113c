"""How the optimum moves with compute: laws for n_opt, T_opt and L* through the bracketed minima, with intervals."""

import math

import numpy as np

from analysis.lines import GRADIENT_TOLERANCE, FloorLaw, PowerLaw, floor_law, floor_laws, power_law, power_laws
from analysis.uncertainty import draw_scatter, interval

BAND_POINTS = 41
X_NAME = "flops_dense"


def number(value: float | None) -> float | None:
    """A finite Python float, else None: JSON has no NaN."""
    return float(value) if value is not None and math.isfinite(value) else None


def bounded(estimate: float, draws: np.ndarray) -> dict:
    """{"estimate", "lo", "hi"} with the 95 % percentile interval of `draws`."""
    low, high = interval(draws)
    return {"estimate": number(estimate), "lo": low, "hi": high}


def ln_tokens(ln_c: np.ndarray | float, ln_n: np.ndarray | float, d_in: int) -> np.ndarray | float:
    """ln T from C = 12 d_in n T."""
    return ln_c - math.log(12 * d_in) - ln_n


def line_record(y_name: str, ln_c: np.ndarray, ln_y: np.ndarray, ln_draws: np.ndarray, sign: int = 1) -> dict:
    """One plain power law as JSON: y = level (C / x_ref)^(sign exponent); ln_draws [draw, budget] hold all noise."""
    law = power_law(ln_c, ln_y)
    levels, slopes = power_laws(ln_c, ln_draws)
    grid = _grid(ln_c)
    spread = levels[:, None] + slopes[:, None] * (grid - law.ln_x_ref)
    return {
        "y": y_name,
        "x": X_NAME,
        "form": "y = level * (C / x_ref)^" + ("exponent" if sign > 0 else "-exponent"),
        "exponent": bounded(sign * law.slope, sign * slopes),
        "level": bounded(math.exp(law.ln_level), np.exp(levels)),
        "x_ref": math.exp(law.ln_x_ref),
        "dof": law.dof,
        "residuals_ln": [float(value) for value in law.residuals],
        "band": _band(grid, law.ln(grid), spread),
    }


def floor_record(y_name: str, ln_c: np.ndarray, ln_y: np.ndarray, ln_draws: np.ndarray, rng) -> dict:
    """The law with a floor as JSON, its certificate beside it. No interval for a fit that did not converge."""
    law = floor_law(ln_c, ln_y)
    noise = draw_scatter(law.residuals, len(ln_c) - 3, np.nanvar(ln_draws, axis=0), ln_draws.shape, rng)
    whole = (ln_draws + noise)[np.isfinite(ln_draws).all(axis=1)] if law.status != "not_converged" else ln_draws[:0]
    points, gradient = floor_laws(ln_c, whole, law)
    level, exponent, floor = points[gradient <= GRADIENT_TOLERANCE].T
    grid = _grid(ln_c)
    spread = np.log(floor[:, None] + np.exp(level[:, None] - exponent[:, None] * (grid - law.ln_x_ref)))
    return {
        "y": y_name,
        "x": X_NAME,
        "form": "y = floor + amplitude * (C / x_ref)^-exponent",
        "exponent": bounded(law.exponent, exponent),
        "floor": bounded(law.floor, floor),
        "amplitude": bounded(math.exp(law.ln_amplitude), np.exp(level)),
        "x_ref": math.exp(law.ln_x_ref),
        "dof": len(ln_c) - 3,
        "residuals_ln": [float(value) for value in law.residuals],
        "status": law.status,
        "certificate": _certificate(law, len(level), len(whole)),
        "band": _band(grid, law.ln(grid), spread),
    }


def _certificate(law: FloorLaw, converged: int, tried: int) -> dict:
    return {
        "scaled_gradient": number(law.gradient),
        "at_bound": list(law.at_bound),
        "agreeing_starts": law.agreeing_starts,
        "draws_converged": converged,
        "draws_tried": tried,
    }


def optimum_laws(y_name: str, ln_c: np.ndarray, optima: dict, draws: dict, d_in: int, rng) -> dict:
    """The laws through the bracketed minima: n_latents, n_tokens, loss, and loss_floor from four budgets on.

    optima: ln_n, ln_y [budget]; draws: the same [draw, budget], seed noise only. The scatter of the budgets around
    each line is added here. T is solved from n_opt, so its law carries the same draws.
    """
    noisy = {}
    for name in ("ln_n", "ln_y"):
        law = power_law(ln_c, optima[name])
        noisy[name] = draws[name] + draw_scatter(
            law.residuals, law.dof, np.nanvar(draws[name], axis=0), draws[name].shape, rng
        )
    ln_t, noisy_t = ln_tokens(ln_c, optima["ln_n"], d_in), ln_tokens(ln_c, noisy["ln_n"], d_in)
    laws = {
        "n_latents": line_record("n_latents", ln_c, optima["ln_n"], noisy["ln_n"]),
        "n_tokens": line_record("n_tokens", ln_c, ln_t, noisy_t),
        "loss": line_record(y_name, ln_c, optima["ln_y"], noisy["ln_y"], sign=-1),
        "loss_floor": None,
    }
    if len(ln_c) >= 4:
        laws["loss_floor"] = floor_record(y_name, ln_c, optima["ln_y"], draws["ln_y"], rng)
    return laws


def hold_out_largest(ln_c: np.ndarray, ln_n: np.ndarray, ln_y: np.ndarray) -> dict | None:
    """Fit all budgets but the largest, predict its n_opt and L*; None under four budgets.

    error_percent = 100 (predicted / seen - 1), where seen is that budget's own fitted minimum.
    """
    if len(ln_c) < 4:
        return None
    less = slice(0, -1)
    loss_floor = floor_law(ln_c[less], ln_y[less]) if len(ln_c) >= 5 else None
    use_floor = loss_floor is not None and loss_floor.status != "not_converged"
    return {
        "flops_dense": math.exp(ln_c[-1]),
        "budgets_used": len(ln_c) - 1,
        "n_latents": _missed(power_law(ln_c[less], ln_n[less]), ln_c[-1], ln_n[-1]),
        "loss": _missed(power_law(ln_c[less], ln_y[less]), ln_c[-1], ln_y[-1]),
        "loss_floor": _missed(loss_floor, ln_c[-1], ln_y[-1]) if use_floor else None,
    }


def _missed(law: PowerLaw | FloorLaw, ln_x: float, ln_seen: float) -> dict:
    predicted = float(law.ln(ln_x))
    return {
        "predicted": math.exp(predicted),
        "seen": math.exp(ln_seen),
        "error_percent": 100 * math.expm1(predicted - ln_seen),
    }


def _grid(ln_c: np.ndarray) -> np.ndarray:
    """Where bands are drawn: the fitted range and a fifth of its width on either side."""
    margin = 0.2 * (ln_c.max() - ln_c.min())
    return np.linspace(ln_c.min() - margin, ln_c.max() + margin, BAND_POINTS)


def _band(grid: np.ndarray, ln_line: np.ndarray, ln_draws: np.ndarray) -> dict:
    bounds = [interval(column) for column in ln_draws.T]
    return {
        "flops_dense": [float(value) for value in np.exp(grid)],
        "estimate": [float(value) for value in np.exp(ln_line)],
        "lo": [None if low is None else math.exp(low) for low, _ in bounds],
        "hi": [None if high is None else math.exp(high) for _, high in bounds],
    }
