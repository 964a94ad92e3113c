"""What a fit gives: estimates, intervals, certificate, residuals, warnings; predictions; text and JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import pandas as pd

from analysis import formula
from analysis.certificate import Certificate
from analysis.laws import Law

SCHEMA = 1
LEVEL = 0.95


@dataclass(frozen=True)
class FitResult:
    """One fitted law. Every dict is name -> number, in the law's own units; intervals are 95 %, (low, high), and there are
    none at all when the status is not 'ok' or no draws were asked for.

    params, derived: estimates. intervals, se: of both. covariance [param, param], draws [draw, param]: params only.
    residuals [row]: ln y of the row minus the law's. objective: kind, delta (ln y), value (sum over rows, ln y squared; LAD:
    sum of |residual|), inside_share (share of residuals within delta). twin: the least-squares fit of the same rows.
    bootstrap: method, asked, lost and degenerate shares. profile: intervals by profiling. holdout, influence, diagnostics:
    see the modules of those names. warnings: codes, whose words are in analysis.codes. conventions: what the names mean.
    """

    law: Law
    params: dict[str, float]
    derived: dict[str, float]
    certificate: Certificate
    residuals: np.ndarray
    objective: dict
    twin: dict
    n_rows: int
    n_clusters: int
    data_hash: str
    conventions: dict
    spans: dict[str, tuple[float, float]]
    warnings: tuple[str, ...] = ()
    intervals: dict[str, tuple[float, float]] | None = None
    se: dict[str, float] | None = None
    covariance: np.ndarray | None = None
    draws: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    bootstrap: dict | None = None
    profile: dict | None = None
    holdout: dict | None = None
    influence: list | None = None
    diagnostics: dict = field(default_factory=dict)
    levels: dict[str, float] = field(default_factory=dict)
    parts: "dict[str, FitResult]" = field(default_factory=dict)

    @property
    def status(self) -> str:
        """'ok', 'degenerate', 'at_bound' or 'not_converged'."""
        return self.certificate.status

    @property
    def rms(self) -> float:
        return float(np.sqrt(np.mean(self.residuals**2)))

    def interval(self, name: str) -> tuple[float, float] | None:
        return self.intervals.get(name) if self.intervals else None

    def predict(self, points: pd.DataFrame | Mapping) -> pd.DataFrame:
        """y at points with the law's columns: `estimate`; `curve_lo`, `curve_hi` for the law itself; `lo`, `hi` for a new
        run there: parameter draws and residuals together, widened by the held-out test. NaN where there is no interval.
        Errors: `ValueError` for missing columns, or a law with levels, which has no y outside its own cells."""
        out = {"estimate": self.curve(points)}
        empty = np.full(len(out["estimate"]), np.nan)
        out |= dict.fromkeys(("curve_lo", "curve_hi", "lo", "hi"), empty)
        if self.intervals is not None:
            curves = np.log(self.predict_draws(points))
            out["curve_lo"], out["curve_hi"] = np.exp(_percentiles(curves))
            low, high = _percentiles(self.ln_noisy(points))
            wide, centre = self.widening, np.log(out["estimate"])
            with np.errstate(over="ignore"):
                out["lo"], out["hi"] = np.exp(centre + wide * (low - centre)), np.exp(centre + wide * (high - centre))
        return pd.DataFrame(out)

    def curve(self, points: pd.DataFrame | Mapping) -> np.ndarray:
        """y of the law at the estimate, [point]."""
        return curve(self.law, self._columns(points), self.params)

    def ln_noisy(self, points: pd.DataFrame | Mapping) -> np.ndarray:
        """ln y of a new run by each draw: the law's, plus a residual drawn with replacement, [draw, point]."""
        curves = np.log(self.predict_draws(points))
        return curves + self._noise(curves.shape)

    def predict_draws(self, points: pd.DataFrame | Mapping) -> np.ndarray:
        """y of the law by each draw, [draw, point]."""
        named = {name: self.draws[:, i, None] for i, name in enumerate(self.law.params)}
        return curve(self.law, self._columns(points), named)

    def derive(self, text: str) -> tuple[float, np.ndarray]:
        """A formula in the parameters: (estimate, its draws [draw])."""
        named = {name: self.draws[:, i] for i, name in enumerate(self.law.params)} if self.draws.size else {}
        return float(formula.evaluate(text, self.params)), formula.evaluate(text, named) if named else np.empty(0)

    @property
    def widening(self) -> float:
        """What prediction intervals are multiplied by, so that they would have covered the held-out rows."""
        return float((self.holdout or {}).get("widening") or 1.0)

    def _noise(self, shape: tuple[int, int]) -> np.ndarray:
        """Residuals drawn with replacement, scaled for the degrees of freedom left; the same at every call."""
        left = self.n_rows / max(self.n_rows - len(self.law.params), 1)
        return np.random.default_rng(0).choice(self.residuals, size=shape) * np.sqrt(left)

    def _columns(self, points: pd.DataFrame | Mapping) -> dict[str, np.ndarray]:
        if missing := [name for name in self.law.columns if name not in points]:
            raise ValueError(f"To predict with the law {self.law.name!r}, give {', '.join(missing)} too.")
        if self.law.levels:
            raise ValueError(f"The law {self.law.name!r} has a level per cell and predicts no {self.law.y}.")
        return {name: np.atleast_1d(np.asarray(points[name], float)) for name in self.law.columns}

    def to_dict(self) -> dict:
        """Plain JSON: no NaN (None), no infinity (None), arrays as lists."""
        out = {"schema": SCHEMA, "status": self.status}
        for item in fields(self):
            out[item.name] = _plain(getattr(self, item.name))
        return out

    @classmethod
    def from_dict(cls, record: Mapping) -> "FitResult":
        """The inverse of `to_dict`. Errors: `ValueError` for another schema."""
        if record.get("schema") != SCHEMA:
            raise ValueError(f"This result has schema {record.get('schema')!r}, not {SCHEMA}: fit the table again.")
        values = {item.name: record[item.name] for item in fields(cls)}
        values["law"] = Law.from_dict(values["law"])
        values["certificate"] = Certificate.from_dict(values["certificate"])
        values["residuals"] = np.array(values["residuals"], float)
        shape = (len(values["draws"]), len(values["law"].params)) if values["draws"] else (0, 0)
        values["draws"] = np.array(values["draws"], float).reshape(shape)
        values["covariance"] = None if values["covariance"] is None else np.array(values["covariance"], float)
        values["warnings"] = tuple(values["warnings"])
        values["spans"] = {name: tuple(pair) for name, pair in values["spans"].items()}
        if values["intervals"] is not None:
            values["intervals"] = {name: tuple(pair) for name, pair in values["intervals"].items()}
        values["parts"] = {name: cls.from_dict(part) for name, part in values["parts"].items()}
        return cls(**values)

    def summary(self) -> str:
        """A page of text."""
        from analysis.page import text

        return text(self)


def curve(law: Law, columns: Mapping, params: Mapping) -> np.ndarray:
    """y of a law: columns name -> [point], params name -> number or [draw, 1]."""
    values = {**columns, **params}
    with np.errstate(over="ignore", invalid="ignore"):
        total = sum(values[name] * formula.evaluate(text, values) for name, text in law.terms.items())
        total = total + 0.0 * next(iter(columns.values()))
        return total ** values[law.power] if law.power else total


def _percentiles(draws: np.ndarray) -> np.ndarray:
    tail = 50 * (1 - LEVEL)
    return np.percentile(draws, [tail, 100 - tail], axis=0)


def _plain(value):
    if isinstance(value, Law | Certificate | FitResult):
        return value.to_dict() if not isinstance(value, Law) else _plain(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.bool_ | bool):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
