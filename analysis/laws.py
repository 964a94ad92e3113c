"""The laws that can be fitted, each a declaration; a user's own is a few lines.

A law is a sum of terms: a coefficient (linear, never negative) times a formula in columns and exponents (nonlinear),

    Law("nd", {"E": "1", "A": "N**-alpha", "B": "D**-beta"}, ranges={"alpha": (0.02, 3), "beta": (0.02, 3)})

Names with a range are parameters, all others columns of the table. For each choice of the exponents the coefficients
follow by linear least squares, so only the exponents need a range to be sought in. Any formula will do:

    Law("shifted", {"E": "1", "A": "(x + s)**-alpha"}, y="y", ranges={"s": (0.1, 10), "alpha": (0.02, 3)})

Derivatives are exact in either case (analysis.formula). A law is data: it is written into the result's JSON and read
back from there. Residuals are always in ln y.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from analysis import formula

EXPONENT = (0.02, 3.0)


@dataclass(frozen=True)
class Law:
    """One declaration; see the module's words.

    terms: coefficient -> formula; "1" is a floor. y: the column that is explained. ranges: exponent -> (low, high) that the
    grid covers, geometric and held within [0, 2 high] when low > 0, or the name of a column: inside the middle 80 % of its
    logarithmic range. power: the name of an exponent on the whole sum. levels: columns whose every combination has a level
    of its own in place of the coefficient. derived: name -> formula in parameters. axis: the columns whose product is the
    scale along which held-out tests extrapolate. nested: smaller laws to compare with; wider: a larger one that would show that
    this one is too small.
    Errors: `ValueError` naming what cannot be read.
    """

    name: str
    terms: Mapping[str, str]
    y: str = "loss"
    ranges: Mapping[str, tuple[float, float] | str] = field(default_factory=dict)
    power: str = ""
    levels: tuple[str, ...] = ()
    derived: Mapping[str, str] = field(default_factory=dict)
    axis: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    wider: str = ""

    def __post_init__(self):
        used = self._used()
        if not self.terms or (self.levels and len(self.terms) > 1):
            raise ValueError(f"The law {self.name!r} needs at least one term, and exactly one where it has levels.")
        if unused := [name for name in self.ranges if name not in used and name != self.power]:
            raise ValueError(f"The law {self.name!r} has a range for {', '.join(unused)}, which none of its terms uses.")
        if self.power and self.power not in self.ranges:
            raise ValueError(f"The law {self.name!r} needs a range for its power {self.power!r}.")
        if twice := [name for name in self.terms if name in used]:
            raise ValueError(f"The law {self.name!r} uses {', '.join(twice)} as a coefficient and inside a term: rename one.")
        for text in self.derived.values():
            if unknown := [name for name in formula.names(text) if name not in self.params]:
                raise ValueError(f"The law {self.name!r} derives {text!r} from {', '.join(unknown)}, not among its parameters.")

    def _used(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for text in self.terms.values() for name in formula.names(text)))

    @property
    def columns(self) -> tuple[str, ...]:
        """The table's columns that the law reads, without y, in the order of appearance."""
        found = [name for name in self._used() if name not in self.ranges]
        return tuple(dict.fromkeys([*found, *self.levels]))

    @property
    def coefficients(self) -> tuple[str, ...]:
        return () if self.levels else tuple(self.terms)

    @property
    def exponents(self) -> tuple[str, ...]:
        return tuple(self.ranges)

    @property
    def params(self) -> tuple[str, ...]:
        """Every parameter by name: coefficients, then exponents. Levels are not among them."""
        return self.coefficients + self.exponents

    @property
    def floor(self) -> str:
        """The coefficient of the term that depends on nothing, or ''."""
        return next((name for name, text in self.terms.items() if not formula.names(text) and len(self.terms) > 1), "")

    def positive(self, name: str) -> bool:
        """Whether a parameter cannot be negative."""
        return name in self.terms or isinstance(self.ranges[name], str) or self.ranges[name][0] > 0

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping) -> "Law":
        ranges = {name: span if isinstance(span, str) else tuple(span) for name, span in record["ranges"].items()}
        lists = {name: tuple(record[name]) for name in ("levels", "axis", "nested")}
        return cls(**{**record, "ranges": ranges, **lists})


_N, _D = "N**-alpha", "D**-beta"
_BOTH = {"alpha": EXPONENT, "beta": EXPONENT}
_SHARE = "beta / (alpha + beta)"
_K, _NK = "K**beta_k * N**beta_n", "K**beta_k * N**beta_n * exp(gamma * ln(N) * ln(K))"
_SIGNED = {"beta_k": (-1.6, 0.6), "beta_n": (-1.3, 0.2)}
_CROSS, _FLOOR = {"gamma": (-0.3, 0.3)}, {"eta": (-1.6, 0.6)}
# (1 + (x / x_break)^(1/w))^-w with w = 0.5: the slope turns from alpha to alpha_after within about a decade of x_break.
_BREAK = "x**-alpha * (1 + (x / x_break)**2)**(0.5 * (alpha - alpha_after))"

_DECLARED = [
    Law("power", {"E": "1", "A": "x**-alpha"}, "y", {"alpha": EXPONENT}, axis=("x",), nested=("power_plain",)),
    Law("power_plain", {"A": "x**-alpha"}, "y", {"alpha": (-3.0, 3.0)}, axis=("x",)),
    Law("broken", {"A": _BREAK}, "y", {"alpha": (-3.0, 3.0), "alpha_after": (-3.0, 3.0), "x_break": "x"},
        axis=("x",), nested=("power_plain", "power")),
    # N = G (N D)^a minimises A N^-alpha + B D^-beta at fixed product N D (Hoffmann et al. 2022, equation 4, with 6 N D = C).
    Law("nd", {"E": "1", "A": _N, "B": _D}, ranges=_BOTH, axis=("N", "D"),
        nested=("nd_tied", "nd_plain", "nd_kaplan"), wider="nd_interaction",
        derived={"a": _SHARE, "b": "alpha / (alpha + beta)", "G": "(alpha * A / (beta * B))**(1 / (alpha + beta))"}),
    Law("nd_tied", {"E": "1", "A": _N, "B": "D**-alpha"}, ranges={"alpha": EXPONENT}, axis=("N", "D"),
        derived={"G": "(A / B)**(0.5 / alpha)"}),
    Law("nd_plain", {"A": _N, "B": _D}, ranges=_BOTH, axis=("N", "D"), derived={"a": _SHARE}),
    # Kaplan et al. 2020, equation 1.5: L = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D.
    Law("nd_kaplan", {"A": "N**-ratio", "B": "1 / D"}, ranges={"ratio": EXPONENT, "alpha_D": (0.02, 2.0)}, power="alpha_D",
        axis=("N", "D"), derived={"alpha_N": "ratio * alpha_D", "a": "1 / (1 + ratio)"}),
    Law("nd_interaction", {"E": "1", "A": _N, "B": "N**c * D**-beta"}, ranges={**_BOTH, "c": (-1.0, 1.5)}, axis=("N", "D"),
        derived={"a": "beta / (alpha + beta + c)", "b": "(alpha + c) / (alpha + beta + c)"}, nested=("nd",)),
    # Gao et al. 2024, their L(n, k): A = exp(alpha), Z = exp(zeta).
    Law("nk", {"A": _NK, "Z": "K**eta"}, ranges={**_SIGNED, **_CROSS, **_FLOOR}, axis=("N",),
        nested=("nk_plain", "nk_interaction", "nk_floor")),
    Law("nk_floor", {"A": _K, "Z": "K**eta"}, ranges={**_SIGNED, **_FLOOR}, axis=("N",), nested=("nk_plain",), wider="nk"),
    Law("nk_interaction", {"A": _NK}, ranges={**_SIGNED, **_CROSS}, axis=("N",), nested=("nk_plain",), wider="nk"),
    Law("nk_plain", {"A": _K}, ranges=_SIGNED, axis=("N",)),
    # ln loss = level(N, D) + curvature (ln lr - ln lr_best)^2 / 2, ln lr_best = ln lr_1 + p_N ln N + p_D ln D: multiplied
    # out, what does not depend on lr joins the level of its (N, D) cell, and the rest is linear in ln lr and its products.
    Law("lr", {"A": "exp(0.5 * curvature * ln(lr)**2 - ln(lr) * (s_0 + s_N * ln(N) + s_D * ln(D)))"},
        ranges={"curvature": (-1.0, 1.0), "s_0": (-1.0, 1.0), "s_N": (-1.0, 1.0), "s_D": (-1.0, 1.0)}, levels=("N", "D"),
        derived={"p_N": "s_N / curvature", "p_D": "s_D / curvature", "lr_1": "exp(s_0 / curvature)"}),
]
LAWS = {law.name: law for law in _DECLARED}


def find(law: "str | Law") -> Law:
    """A law by name, or itself. Errors: `ValueError` listing the names."""
    if isinstance(law, Law):
        return law
    if law not in LAWS:
        raise ValueError(f"There is no law {law!r}: choose one of {', '.join(LAWS)}, or declare one with analysis.Law.")
    return LAWS[law]
