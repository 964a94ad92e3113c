"""What a fit should be distrusted for: codes, whose words are in analysis.codes."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from analysis.result import FitResult

_DECADES_FOR_A_FLOOR = 2.0
_INSIDE_LEAST = 0.25
_DEGENERATE_MOST = 0.05


def fit_warnings(fit: "FitResult") -> list[str]:
    """Codes that follow from the result alone."""
    found = {"degenerate": ["term_vanished"], "at_bound": ["exponent_at_bound"], "not_converged": ["fit_not_converged"]}.get(
        fit.status, [])
    decades = [np.log10(high / low) for low, high in fit.spans.values()]
    if fit.law.floor and max(decades) < _DECADES_FOR_A_FLOOR:
        found.append("floor_needs_decades")
    if fit.objective["kind"] == "huber" and fit.objective["inside_share"] < _INSIDE_LEAST:
        found.append("threshold_below_noise")
    if fit.se and _moves(fit):
        found.append("objective_matters")
    if fit.bootstrap and fit.bootstrap["degenerate"] + fit.bootstrap["lost"] > _DEGENERATE_MOST:
        found.append("draws_degenerate")
    if fit.certificate.agreeing_starts < fit.certificate.starts / 2:
        found.append("starts_disagree")
    return found


def _moves(fit: "FitResult") -> bool:
    """Whether an exponent differs by more than one standard error from its least-squares twin."""
    twin = fit.twin["params"]
    return any(abs(fit.params[name] - twin[name]) > fit.se.get(name, np.inf) for name in fit.law.exponents)
