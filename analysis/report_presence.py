"""The report's section on concepts: the law of presence, beside its controls and under other definitions."""

from html import escape

from analysis.codes import WARNINGS
from analysis.markup import table


def presence(fit: dict) -> str:
    """HTML of `fits["presence"]`: sentence, sizes, gap to the controls, definitions, categories, what to read with care."""
    parts = [f"<p>{escape(_sentence(fit))}</p>", _sizes(fit), _definitions(fit), _categories(fit)]
    items = "".join(f"<li>{escape(WARNINGS[code])} <code>{escape(code)}</code></li>\n" for code in fit["warnings"])
    return "\n".join([*filter(None, parts), f'<ul class="notes">\n{items}</ul>' if items else ""])


def _sentence(fit: dict) -> str:
    joint, left = fit["joint"]["trained"], ", ".join(f"{n} {why.replace('_', ' ')}" for why, n in fit["excluded"].items() if n)
    out = [f"{fit['n_concepts']} concepts, present at a score of {fit['tau']:g} or more ({fit['label']})."]
    if left:
        out.append(f"Left out for every dictionary alike: {left}.")
    if joint["q"] is None:
        return " ".join([*out, f"No exponent: {joint['reason']}."])
    out.append(f"f50 ~ n_alive^-q with q = {_value(joint['q'], joint['q_interval'])}")
    test = joint["q_test"]
    out[-1] += f" (against 1: z = {test['z']:.1f}, p = {test['p']:.2g})." if test else "."
    if joint["c_at_q1"] is not None:
        c = _value(joint["c_at_q1"], joint["c_at_q1_interval"])
        out.append(f"With q = 1, f50 = c / n_alive with c = {c}; c depends on the threshold and means nothing by itself.")
    if joint["collapse_share"] is not None:
        own = joint["collapse_clustered"]["p"]
        out.append(f"One curve in f * n_alive keeps {joint['collapse_share']:.0%} of what sizes explain.")
        out.append(f"That sizes need curves of their own: p = {own:.2g}.")
    return " ".join([*out, _against_control(fit), _scaler(fit["scaler"])])


def _against_control(fit: dict) -> str:
    gap = fit["q_gap"]
    if gap is None:
        return "No exponent of untrained dictionaries stands beside it."
    ends = gap["interval"]
    return (f"Untrained dictionaries: q = {_value(fit['joint']['untrained']['q'], fit['joint']['untrained']['q_interval'])};"
            f" trained minus untrained {_value(gap['estimate'], ends)}.")  # fmt: skip


def _scaler(scaler: dict) -> str:
    z = scaler["one_curve"]["z"]
    verdict = "does better than" if z > 2 else "does worse than" if z < -2 else "cannot be told from"
    return f"Rescaling frequency by alive latents {verdict} rescaling by all latents (z = {z:.1f})."


def _sizes(fit: dict) -> str:
    gaps = {row["n_latents"]: row for row in fit["gaps"]}
    rows = []
    for row in fit["sizes"]:
        gap = gaps.get(row["n_latents"]) if row["trained"] else None
        f50 = row["status"] if row["f50"] is None else _small(row["f50"], row["f50_interval"])
        rows.append([row["dictionary"], f"{row['n_latents']:,}", f"{row['n_alive']:,.0f}", f"{row['present_share']:.1%}", f50,
                     "-" if row["c"] is None else f"{row['c']:.2f}",
                     "-" if gap is None else _value(gap["gap"], gap["gap_interval"])])  # fmt: skip
    heads = [("dictionary", False), ("n_latents", True), ("alive", True), ("present", True), ("f50", True), ("f50 * alive", True)]
    return table([*heads, ("share above untrained", True)], rows)


def _definitions(fit: dict) -> str:
    rows = []
    for row in fit["sensitivity"]:
        q = row["reason"] if row["q"] is None else _value(row["q"], row["q_interval"])
        untrained = row["untrained_reason"]
        if row["untrained_q"] is not None:
            untrained = _value(row["untrained_q"], row["untrained_q_interval"])
        rows.append([row["what"], row["n_concepts"], q, untrained])
    if fit["lapse"]["q"] is not None:
        words = f"with a ceiling of {1 - fit['lapse']['lapse']:.2f}"
        rows.append([words, fit["n_concepts"], _value(fit["lapse"]["q"], fit["lapse"]["q_interval"]), "-"])
    heads = [("presence is", False), ("concepts", True), ("q", True), ("q untrained", True)]
    return f"<h3>Under other definitions</h3>\n{table(heads, rows)}"


def _categories(fit: dict) -> str:
    block = fit["categories"]
    if block is None:
        return ""
    rows = []
    for row in block["rows"]:
        q = row["reason"] if row["q"] is None else _value(row["q"], row["q_interval"])
        rows.append([row["category"], row["n_concepts"], _value(row["f50_ratio"], row["f50_ratio_interval"]), q])
    words = f"Do categories differ at equal frequency? chi-squared {block['test']['statistic']:.1f} on {block['test']['df']}"
    words += f" degrees of freedom, p = {block['test']['p']:.2g} (variance over concepts)."
    heads = [("category", False), ("concepts", True), ("f50 over the mean of categories", True), ("q alone", True)]
    return f"<h3>By category</h3>\n<p>{escape(words)}</p>\n{table(heads, rows)}"


def oracle(block: dict) -> str:
    """HTML of `fits["oracle"]`: the exponent by both labellings beside the generator's, and the 50 % frequency of each size."""
    q, agreed = block["q"], block["agreement"]
    said = [f"{name}: " + (q[name]["reason"] if q[name]["q"] is None else f"q = {_value(q[name]['q'], q[name]['q_interval'])}")
            for name in ("cosine", "activity")]  # fmt: skip
    words = [
        "The ideal dictionary of n latents holds the n most frequent features.",
        f"The generator's exponent over these sizes is {q['generator']:.2f}." if q["generator"] else "One size: no exponent.",
        f"By the known directions and by the labeller of real models, {'; '.join(said)}.",
        f"They agree on {agreed['share']:.1%} of features and dictionaries ({agreed['by_chance']:.1%} by chance).",
    ]
    rows = []
    for row in block["sizes"]:
        both = ["-" if row[name] is None else _small(row[name], row[f"{name}_interval"]) for name in ("cosine", "activity")]
        counts = [f"{row['n_latents']:,}", f"{row['n_present']:,.0f}", f"{row['ideal']:.2e}", f"{row['held']:.2e}"]
        rows.append([*counts, *both, "short of data" if row["data_limited"] else ""])
    heads = [("n_latents", True), ("features held", True), ("f50 of the ideal", True), ("rate of the last held", True)]
    heads += [("f50, known directions", True), ("f50, labeller", True), ("", False)]
    return f"<p>{escape(' '.join(words))}</p>\n{table(heads, rows)}"


def _value(value: float, ends: list) -> str:
    low, high = ends
    return f"{value:.2f}" if None in (low, high) else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _small(value: float, ends: list) -> str:
    low, high = ("beyond" if end is None else f"{end:.1e}" for end in ends)
    return f"{value:.1e} [{low}, {high}]"
