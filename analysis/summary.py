"""The few lines a terminal shows at the end: one row per exponent. The caller draws the table."""

from analysis.matched import answer

ROWS = (
    ("loss", "exponent", "loss L* ~ C^-a: a"),
    ("loss_floor", "exponent", "loss L* = E + A C^-a: a"),
    ("loss_floor", "floor", "loss L* = E + A C^-a: floor E"),
    ("n_latents", "exponent", "optimal size n* ~ C^p: p"),
    ("n_tokens", "exponent", "optimal tokens T* ~ C^q: q"),
)


def exponent_rows(fits: dict) -> list[tuple[str, float | None, float | None, float | None, str]]:
    """(name, estimate, lo, hi, note) per law; None where a number is missing, and then the note says why. A sweep without budgets
    has no rows of compute."""
    bracketed = sum(budget["status"] == "bracketed" for budget in fits["budgets"])
    budgets = f"{bracketed} of {len(fits['budgets'])} budgets bracketed"
    rows = []
    for law_name, value_name, words in ROWS if fits["budgets"] else ():
        law = fits["laws"][law_name]
        if law is None:
            rows.append((words, None, None, None, _why_absent(law_name, bracketed, budgets)))
            continue
        value = law[value_name]
        rows.append((words, value["estimate"], value["lo"], value["hi"], _note(law_name, law, budgets)))
    rows += _split_rows(fits) + _rate_rows(fits.get("learning_rate")) + _kind_rows(fits)
    return rows + _presence_rows(fits.get("presence"))


def answer_of_kinds(fits: dict) -> str:
    """Which kind of SAE reconstructs best at the same l0, in a sentence; empty where kinds were not compared."""
    block = fits.get("matched_l0") or {}
    return answer(block) if block.get("sizes") else ""


def _split_rows(fits: dict) -> list[tuple[str, float | None, float | None, float | None, str]]:
    """The exponent of the best size by the fitted surface and by the cubic valleys; a disagreement is said."""
    block = fits.get("allocation") or {}
    if "estimates" not in block:
        return []
    note = "; ".join(
        f"{' and '.join(pair['between'])} disagree on the best size's exponent"
        for pair in block["disagreement"]
        if pair["disagree"]
    )
    rows = []
    for method, words in (
        ("parametric", f"n* ~ C^a by the surface {block['law']}: a"),
        ("isoflop", "n* ~ C^a by cubic valleys: a"),
    ):
        one = block["estimates"][method]
        a = one.get("a") or {"estimate": None, "lo": None, "hi": None}
        rows.append((words, a["estimate"], a["lo"], a["hi"], one.get("reason", note)))
    return rows


def _rate_rows(block: dict | None) -> list[tuple[str, float | None, float | None, float | None, str]]:
    """How the best learning rate moves with size and with tokens."""
    if not block or "fit" not in block:
        return []
    fit, edges = block["fit"], len(block["edges"])
    note = f"the best rate is at the edge of its grid in {edges} cells" if edges else ""
    rows = []
    for name, words in (("p_N", "best lr ~ n^p T^q: p"), ("p_D", "best lr ~ n^p T^q: q")):
        lo, hi = (fit["intervals"] or {}).get(name) or (None, None)
        rows.append((words, fit["derived"][name], lo, hi, note))
    if slope := block.get("ladder", {}).get("exponent"):
        rows.append(("best lr ~ C^r, one size a budget: r", slope["estimate"], slope["lo"], slope["hi"], note))
    return rows


def _kind_rows(fits: dict) -> list[tuple[str, float | None, float | None, float | None, str]]:
    """How the loss moves with size and k together, and what each kind spends beside another for the same loss."""
    surface, spent = fits.get("size_by_k") or {}, fits.get("equal_compute") or {}
    rows = []
    for name in ("beta_n", "beta_k", "gamma", "eta") if "fit" in surface else ():
        if name in surface["fit"]["params"]:
            lo, hi = (surface["fit"]["intervals"] or {}).get(name) or (None, None)
            rows.append((f"L(n, k) of {surface['kind']} by {surface['law']}: {name}", surface["fit"]["params"][name], lo, hi, ""))
    for kind, costs in spent.get("kinds", {}).items():
        for cost, one in costs.items():
            if one["multiple"] and kind != spent["beside"]:
                words, note = f"{cost} of {kind} / {spent['beside']}", "for the same fvu; brackets: least and most over seeds"
                rows.append((words, *(one["multiple"][side] for side in ("estimate", "lo", "hi")), note))
    return rows


def _presence_rows(presence: dict | None) -> list[tuple[str, float | None, float | None, float | None, str]]:
    """How the frequency at which half of the concepts have a latent falls with alive latents; no row without concepts."""
    if presence is None:
        return []
    rows = []
    for kind, words in (("trained", "concept frequency f50 ~ n_alive^-q: q"), ("untrained", "the same, untrained (control): q")):
        joint = presence["joint"].get(kind) or {"reason": "not scored"}
        lo, hi = joint.get("q_interval") or (None, None)
        note = f"{presence['n_concepts']} concepts at score >= {presence['tau']:g}; read q beside the untrained control"
        reason = joint.get("reason")
        rows.append((words, joint.get("q"), lo, hi, f"no q {kind}: {reason}" if reason else note))
    return rows


def _why_absent(law_name: str, bracketed: int, budgets: str) -> str:
    return f"{budgets}, {4 if law_name == 'loss_floor' and bracketed >= 3 else 3} needed"


def _note(law_name: str, law: dict, budgets: str) -> str:
    if law_name != "loss_floor":
        return budgets + ("; q = 1 - p by C = 12 d n T" if law_name == "n_tokens" else "")
    if law["status"] != "ok":
        return f"{budgets}; {law['status'].replace('_', ' ')}"
    return budgets + ("" if law["identified"] else "; floor not identified: under two decades of compute")
