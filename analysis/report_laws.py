"""The report's sections on fitted laws: which law, how well it foretells, the split three ways, learning rate, convergence."""

from html import escape

from analysis import matched
from analysis.codes import WARNINGS
from analysis.markup import table
from analysis.report_presence import oracle, presence

METHODS = {"parametric": "fitted surface", "isoflop": "iso-FLOP valleys", "frontier": "frontier of the best runs"}


def sections(fits: dict) -> list[str]:
    """One piece of HTML per block that has something to say, and at the end one for the blocks that say why they cannot; fits
    without these blocks give none."""
    makers = {
        "surface": ("Loss as a law of size and tokens", _surface),
        "allocation": ("The split of compute, three ways", _allocation),
        "learning_rate": ("Best learning rate", _rates),
        "convergence": ("At convergence", _convergence),
        "matched_l0": ("Kinds at the same l0", _matched),
        "firing": ("Dead latents", _firing),
        "presence": ("Concepts: how rare one may be and have a latent", presence),
        "oracle": ("Synthetic features against their truth", oracle),
    }
    out, silent = [], []
    for name, (title, make) in makers.items():
        block = fits.get(name)
        if not block or (name == "firing" and not block["sizes"]):
            continue
        if "reason" in block:
            silent.append(f"<dt>{title}</dt><dd>{escape(block['reason'])}</dd>\n")
        else:
            out.append(f"<h2>{title}</h2>\n{make(block)}")
    return [*out, f"<h2>What these runs cannot say</h2>\n<dl>\n{''.join(silent)}</dl>"] if silent else out


def _surface(block: dict) -> str:
    fit = block["fit"]
    models = [
        [m["law"], m["status"], f"{m['rms_ln']:.4f}", f"{m['aic']:.1f}", f"{m['bic']:.1f}",
         "-" if m["held_out"] is None else f"{m['held_out']:.4f}", "chosen" if m["chosen"] else ""]
        for m in block["models"]
    ]  # fmt: skip
    heads = [("law", False), ("status", False), ("rms of ln loss", True), ("AIC", True), ("BIC", True)]
    heads.append(("held-out error, ln", True))
    return (
        "<p>A larger law is chosen only when its BIC is lower by more than 6 and it foretells held-out runs no worse.</p>\n"
        + table([*heads, ("", False)], models)
        + f"\n<h3>{escape(_formula(fit))}</h3>\n{_parameters(fit)}\n{_held_out(fit)}\n"
        + f"{_influence(fit)}\n{_codes(fit['warnings'])}"
    )


def _formula(fit: dict) -> str:
    law = fit["law"]
    terms = " + ".join(name if body == "1" else f"{name} {body}" for name, body in law["terms"].items()).replace("**", "^")
    return f"{law['y']} = ({terms})^{law['power']}" if law["power"] else f"{law['y']} = {terms}"


def _parameters(fit: dict) -> str:
    rows = []
    for name, value in {**fit["params"], **fit["derived"]}.items():
        twin = fit["twin"]["params"].get(name, fit["twin"]["derived"].get(name))
        profile = ((fit["profile"] or {}).get(name) or {}).get("interval")
        rows.append([name, _number(value), _pair((fit["intervals"] or {}).get(name)), _pair(profile), _number(twin)])
    heads = [("", False), ("estimate", True), ("95 % bootstrap", True), ("95 % profile", True), ("least squares", True)]
    used = fit["objective"]
    inside = f"{used['inside_share']:.0%} of residuals inside"
    threshold = "" if used["delta"] is None else f", threshold {used['delta']:.3g} in ln loss, {inside}"
    boot = fit["bootstrap"] or {}
    words = f"{used['kind']}{threshold}; {fit['n_rows']} rows, {fit['n_clusters']} trunks; {boot.get('method', 'no bootstrap')}"
    return f'{table(heads, rows)}\n<p class="quiet">{escape(words)}; data {escape(fit["data_hash"])}.</p>'


def _held_out(fit: dict) -> str:
    held = fit["holdout"]
    if not held:
        return '<p class="quiet">Too few runs to hold any out.</p>'
    rows = [
        [f"{cut['cut']:.3g}", f"{cut['n_train']} / {cut['n_test']}", f"{cut['mean_abs_error']:.1%}", f"{cut['bias']:+.1%}",
         "-" if cut["coverage_95"] is None else f"{cut['coverage_95']:.0%}"]
        for cut in held["cuts"]
    ]  # fmt: skip
    heads = [
        ("fitted below N D", True),
        ("rows fitted / foretold", True),
        ("mean error", True),
        ("bias", True),
        ("inside 95 %", True),
    ]
    over = {"skill_nearest": "the nearest run", "skill_plain": "a plain power law"}
    skill = ", ".join(f"{held[key]:.0%} over {words}" for key, words in over.items() if held[key] is not None)
    wide = held["widening"]
    note = f"Skill {skill}." + (f" Prediction intervals are widened {wide:.2f} times for it." if wide and wide > 1 else "")
    return f'<h3>Held out</h3>\n{table(heads, rows)}\n<p class="quiet">{escape(note)}</p>'


def _influence(fit: dict) -> str:
    if not fit["influence"]:
        return ""
    rows = [[i["cluster"], i["rows"], ", ".join(f"{n} {s:+.2f}" for n, s in i["shift"].items())] for i in fit["influence"]]
    heads = [("without trunk", False), ("rows", True), ("moves, in standard errors", False)]
    return f"<h3>Influence</h3>\n{table(heads, rows)}"


def _allocation(block: dict) -> str:
    rows = []
    for name, words in METHODS.items():
        one, price = block["estimates"][name], block["penalties"].get(name)
        if "a" not in one:
            rows.append([words, one["reason"], *[""] * 6])
            continue
        cost = [f"{price['excess_loss']:.2%}", f"{price['wasted_compute']:.1%}"] if price else ["-", "-"]
        rows.append([words, _number(one["a"]["estimate"]), _bounds(one["a"]), _number(one["b"]["estimate"]), _bounds(one["b"]),
                     f"{one['N']['estimate']:,.0f}", *cost])  # fmt: skip
    heads = [("estimate by", False), ("size exponent a", True), ("95 %", True), ("tokens exponent b", True), ("95 %", True)]
    heads += [(f"N at {block['flops']:.2g} FLOPs", True), ("excess loss", True), ("wasted compute", True)]
    said = []
    for pair in block["disagreement"]:
        verdict = "they DISAGREE" if pair["disagree"] else "no disagreement"
        names = " minus ".join(METHODS[name] for name in pair["between"])
        said.append((f"{names}: {pair['estimate']:+.3f} ({_bounds(pair)}), {verdict}", pair["disagree"]))
    items = "".join(f'<li class="{"" if disagree else "calm"}">{escape(line)}</li>\n' for line, disagree in said)
    words = f"{block['compute']}. Excess loss and wasted compute are those of each split if the surface {block['law']} is true."
    below = f'<ul class="notes">\n{items}</ul>\n<p class="quiet">{escape(words)}</p>'
    return f"{table(heads, rows)}\n{below}\n{_codes(block['warnings'])}"


def _rates(block: dict) -> str:
    fit = block["fit"]
    rows = [[name, _number(fit["derived"][name]), _pair((fit["intervals"] or {}).get(name))] for name in ("p_N", "p_D", "lr_1")]
    text = "<p>ln of the best rate = ln lr_1 + p_N ln N + p_D ln D, fitted to all sizes and horizons together.</p>\n"
    text += table([("", False), ("estimate", True), ("95 %", True)], rows)
    if block["edges"]:
        cells = [
            [f"{e['N']:,.0f}", f"{e['D']:,.0f}", f"{e['lr']:.3g}", f"the {e['edge']} of {e['rates']} tried"]
            for e in block["edges"]
        ]
        heads = [("n_latents", True), ("tokens", True), ("best rate tried", True), ("which is", False)]
        text += f"\n<h3>Best rate at the edge of its grid</h3>\n{table(heads, cells)}"
    return f"{text}\n{_codes(fit['warnings'])}"


def _convergence(block: dict) -> str:
    found, tokens = block["diagnostics"], block["parts"]["tokens"]
    rows = [[f"{s['N']:,.0f}", f"{s['D']:,.0f}", f"{s['loss']:.4g}"] for s in found["sizes"]]
    rule = f"A size has converged where a doubling of tokens lowers the loss by less than {found['eps']:.0%}."
    left = f" Not converged: {', '.join(f'{n:,.0f}' for n in found['unconverged'])}." if found["unconverged"] else ""
    slope = -tokens["params"]["alpha"]
    text = table([("n_latents", True), ("tokens to convergence", True), ("loss there", True)], rows)
    return f"<p>{escape(rule + left)} Tokens to convergence ~ n^{slope:.2f}.</p>\n{text}\n{_codes(block['warnings'])}"


def _matched(block: dict) -> str:
    sizes, rows = matched.lines(block)
    words = (
        f"Share of variance unexplained at a wanted l0 of {block['wanted_l0']:g}: means over seeds, the least and the most of"
        " them, and the l0 measured on held-out tokens (a lower one than another's is the harder task). Each kind at the best of"
        " its learning rates; one that missed the l0 by more than a tenth is left out."
    )
    heads = [("kind", False), *((size, True) for size in sizes)]
    return f'{table(heads, rows)}\n<p class="quiet">{escape(words)}</p>'


def _firing(block: dict) -> str:
    rows = [[f"{s['n_latents']:,}", f"{s['n_tokens']:,}", f"{s['dead_share']:.1%}", _number(s["median"])] for s in block["sizes"]]
    heads = [("n_latents", True), ("tokens trained", True), ("never fired", True), ("median frequency of the others", True)]
    kinds = [s.get("kind") for s in block["sizes"]]
    if len(set(kinds)) > 1:
        rows, heads = [[kind, *row] for kind, row in zip(kinds, rows, strict=True)], [("kind", False), *heads]
    tokens = f"{block['n_held_out_tokens']:,}"
    words = f"Over {tokens} held-out tokens: a latent rarer than about 3 in that many cannot be told from a dead one."
    if "wanted_l0" in block:
        wanted = "No l0 was wanted" if block["wanted_l0"] is None else f"Runs of a wanted l0 of {block['wanted_l0']:g}"
        words += f" {wanted}, at the best learning rate of each row (lowest fvu)."
    return f'{table(heads, rows)}\n<p class="quiet">{escape(words)}</p>'


def _codes(codes: list[str]) -> str:
    lines = "".join(f"<li>{escape(WARNINGS.get(code, code))} <code>{escape(code)}</code></li>\n" for code in codes)
    return f'<ul class="notes">\n{lines}</ul>' if codes else ""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _pair(pair: list | None) -> str:
    return "-" if not pair else " to ".join("open" if v is None else f"{v:.4g}" for v in pair)


def _bounds(record: dict) -> str:
    return "-" if record["lo"] is None else f"{record['lo']:.3f} to {record['hi']:.3f}"
