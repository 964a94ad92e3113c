"""How a report came about: axes, recipe, fit, plan, data, versions, and the machines that trained."""

from collections import Counter
from html import escape
from pathlib import Path

from analysis.disk import read_json
from analysis.markup import plain

KEPT = ("table.csv", "fits.json", "plan.json")
SAID = ("saescale", "torch", "python", "machine", "cpu_capability", "threads", "kernels", "ranks", "numba", "device", "cuda",
        "triton")


def section(plan: dict, fits: dict, made: dict) -> str:
    """`made`: {"version", "commit", "edited", "environments": [[words, runs]]} as the caller knows them, each optional."""
    recipe, rows, drawn = fits["recipe"] or {}, fits["rows"], fits["bootstrap"]
    pairs = [
        ("y", f"{fits['axes']['y']}: {fits['axes']['y_words']}"),
        ("x", f"{fits['axes']['x']}: {fits['axes']['x_words']}"),
        ("recipe", ", ".join(f"{key} {plain(value)}" for key, value in recipe.items() if value is not None) or "-"),
        ("rows", f"{rows['used']} used, {rows['done']} done, {rows['planned']} planned with a budget"),
        ("intervals", f"{drawn.get('method', '-')}; {drawn['draws']} draws, seed {drawn['seed']}"),
        ("plan", str(plan.get("plan_hash", "-"))),
        ("data", str(fits["data_hash"])),
        ("fitted with", ", ".join(f"{name} {version}" for name, version in fits["versions"].items())),
        *(("trained with", f"{words}: {count} runs") for words, count in made.get("environments", [])),
        *(("written by", f"saescale {made['version']}{_commit(made)}") for _ in [0] if made.get("version")),
    ]
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>\n" for key, value in pairs)
    links = ", ".join(f'<a href="data/{name}">{name}</a>' for name in KEPT)
    return (
        f"<h2>How this was made</h2>\n<dl>\n{items}</dl>\n"
        f'<p class="quiet">Everything above comes from {links}, which lie in this folder. Each plot lists the runs behind it.</p>'
    )


def _commit(made: dict) -> str:
    edited = " with edits" if made.get("edited") else ""
    return f" at commit {made['commit']}{edited}" if made.get("commit") else ""


def environments(root: Path, run_ids: list[str]) -> list[list]:
    """[[what these runs were trained with, how many runs]], the most frequent first, read from their records."""
    counts: Counter[str] = Counter()
    for run_id in run_ids:
        try:
            said = read_json(Path(root) / "by-id" / run_id / "result.json").get("environment")
        except (OSError, ValueError):
            continue  # the run table says what is wrong with this record
        if isinstance(said, dict):
            counts[", ".join(f"{key} {said[key]}" for key in SAID if said.get(key) is not None)] += 1
    return [[words, count] for words, count in counts.most_common()]
