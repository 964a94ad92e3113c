"""A fit as a page of text, in the manner of a statistics package."""

from typing import TYPE_CHECKING

from analysis.codes import WARNINGS

if TYPE_CHECKING:
    from analysis.result import FitResult

_WIDTH = 96


def text(fit: "FitResult") -> str:
    lines = ["=" * _WIDTH, *_heading(fit), "-" * _WIDTH, *_table(fit), "-" * _WIDTH, *_certificate(fit), *_more(fit)]
    lines += ["-" * _WIDTH] if fit.warnings else []
    lines += [f"[{code}] {WARNINGS.get(code, '')}" for code in fit.warnings]
    return "\n".join([*lines, "=" * _WIDTH])


def _heading(fit: "FitResult") -> list[str]:
    law, used = fit.law, fit.objective
    body = " + ".join(name if body == "1" else f"{name} {body}" for name, body in law.terms.items())
    threshold = "" if used["delta"] is None else f" (threshold {used['delta']:.3g} in ln {law.y})"
    return [
        f"{law.name}: {law.y} = " + (f"({body})^{law.power}" if law.power else body),
        f"status {fit.status}    rows {fit.n_rows}    clusters {fit.n_clusters}    data {fit.data_hash}",
        f"objective {used['kind']}{threshold}    residuals inside {used['inside_share']:.0%}    rms of ln residual {fit.rms:.3g}",
    ]


def _table(fit: "FitResult") -> list[str]:
    rows = [f"{'':12}{'estimate':>13}{'std err':>11}{'95 % interval':>25}{'95 % profile':>22}{'squared':>13}"]
    for name, value in {**fit.params, **fit.derived}.items():
        se = fit.se.get(name) if fit.se else None
        profile = (fit.profile or {}).get(name, {})
        twin = fit.twin["params"].get(name, fit.twin["derived"].get(name))
        rows.append(
            f"{name:12}{value:13.6g}" + (f"{se:11.3g}" if se is not None else f"{'':>11}")
            + f"{_pair(fit.interval(name)):>25}{_pair(profile.get('interval')):>22}" + f"{twin:13.6g}"
        )
    return rows


def _pair(pair) -> str:
    if pair is None:
        return "none"
    return "  ".join("open" if value is None else f"{value:.4g}" for value in pair)


def _certificate(fit: "FitResult") -> list[str]:
    c = fit.certificate
    shares = ", ".join(f"{name} {share:.2g}" for name, share in c.term_shares.items())
    lines = [f"scaled gradient {c.scaled_gradient:.1e}    least curvature {c.least_curvature:.1e}    "
             f"starts that agree {c.agreeing_starts} of {c.starts}"]
    lines += [f"largest share of each term: {shares}"] if shares else []
    lines += [f"vanished: {', '.join(c.vanished)}"] if c.vanished else []
    return lines + ([f"at a bound: {', '.join(c.at_bound)}"] if c.at_bound else [])


def _more(fit: "FitResult") -> list[str]:
    lines = []
    if fit.bootstrap:
        b = fit.bootstrap
        lines.append(f"{b['method']}, {b['asked']} draws; lost {b['lost']:.1%}, degenerate {b['degenerate']:.1%}")
    if fit.holdout and fit.holdout.get("cuts"):
        last = fit.holdout["cuts"][-1]
        lines.append(f"held out: trained on {last['n_train']} rows, {last['n_test']} above predicted with mean error "
                     f"{last['mean_abs_error']:.2%}, bias {last['bias']:+.2%}; intervals widened {fit.widening:.2f} times")
    return lines
