"""The dashboard of a sweep as code: a wandb workspace, made from the plan alone. Only this file imports wandb_workspaces.

Line panels show training (history, `train/...`), points show records (summary): a training number and a held-out one never share
a name. Runs are coloured by dictionary size, from small (dark) to large (light).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from saescale import identity
from saescale.track.tracked import Book, Tracked

MOST_RUNS = 100  # lines per panel
LEGEND = "n ${config:sae.n_latents}, ${run:displayName}"
GRID_LEFT_OUT = ("lm.", "data.corpus", "data.tokenizer", "eval.", "train.seed", "train.n_tokens")  # constant, or told by the axes


def workspace(runs: Sequence[Tracked], book: Book, entity: str, project: str) -> ws.Workspace:
    """The sweep's workspace. Asks no server."""
    sweep = runs[0].sweep
    colours = size_colours([r.science["sae"]["n_latents"] for r in runs])
    settings = {book.wandb_id(r): ws.RunSettings(color=colours[r.science["sae"]["n_latents"]]) for r in runs}
    return ws.Workspace(
        entity=entity, project=project, name=f"saescale: {sweep}",
        sections=[scaling(), quality(), training(), grid(varying(runs)), laws()],
        settings=ws.WorkspaceSettings(x_axis="tokens", max_runs=MOST_RUNS),
        runset_settings=ws.RunsetSettings(
            filters=expr.And(expr.Metric("Group") == sweep), run_settings=settings,
            order=[expr.Ordering(expr.Config("sae.n_latents"), ascending=True),
                   expr.Ordering(expr.Summary("flops_dense"), ascending=True)],
            pinned_columns=["config:sae.n_latents", "config:budget_flops", "summary:objective", "summary:fvu", "summary:state"]))


def section(name: str, panels: Sequence[Any], columns: int = 3) -> ws.Section:
    rows = math.ceil(len(panels) / columns)
    return ws.Section(name=name, panels=list(panels), is_open=True,
                      layout_settings=ws.SectionLayoutSettings(columns=columns, rows=rows))


def lines(title: str, x: str, y: str, **more: Any) -> wr.LinePlot:
    return wr.LinePlot(title=title, x=x, y=[f"train/{y}"], title_x={"tokens": "tokens", "flops_dense": "FLOPs (dense)"}[x],
                       title_y=y, legend_template=LEGEND, max_runs_to_show=MOST_RUNS, smoothing_type="none", **more)


def points(title: str, x: Any, y: Any, z: Any = None, **more: Any) -> wr.ScatterPlot:
    return wr.ScatterPlot(title=title, x=x, y=y, z=z, log_x=True, legend_template=LEGEND, **more)


def scaling() -> ws.Section:
    n, budget = wr.Config("sae.n_latents"), wr.Config("budget_flops")
    objective, flops = wr.SummaryMetric("objective"), wr.SummaryMetric("flops_dense")
    return section("scaling", [
        lines("training loss against compute", "flops_dense", "loss", log_x=True, log_y=True),
        lines("training loss against tokens", "tokens", "loss", log_x=True, log_y=True),
        points("iso-FLOP valleys: held-out objective against size, by budget", n, objective, budget, log_y=True, log_z=True),
        points("held-out objective against compute, by size", flops, objective, n, log_y=True, log_z=True),
        points("held-out objective against tokens, by size", wr.SummaryMetric("n_tokens"), objective, n, log_y=True, log_z=True)])


def quality() -> ws.Section:
    n, flops = wr.Config("sae.n_latents"), wr.SummaryMetric("flops_dense")
    return section("quality, held out", [
        points("fvu against compute, by size", flops, wr.SummaryMetric("fvu"), n, log_y=True, log_z=True),
        points("fvu against l0, by size", wr.SummaryMetric("l0"), wr.SummaryMetric("fvu"), n, log_y=True, log_z=True),
        points("ce_recovered against compute, by size", flops, wr.SummaryMetric("ce_recovered"), n, log_z=True),
        points("l0 against size, by compute", n, wr.SummaryMetric("l0"), flops, log_z=True),
        points("alive latents against size, by compute", n, wr.SummaryMetric("n_alive"), flops, log_y=True, log_z=True),
        points("alive fraction against size, by compute", n, wr.SummaryMetric("alive_fraction"), flops, log_z=True)])


def training() -> ws.Section:
    return section("training", [
        lines("l0", "tokens", "l0"), lines("latents not fired of late (n_dead)", "tokens", "n_dead"),
        lines("learning rate", "tokens", "lr"), lines("gradient norm", "tokens", "grad_norm", log_y=True),
        lines("auxiliary loss", "tokens", "aux_loss"),
        points("throughput: tokens per second against size", wr.Config("sae.n_latents"), wr.SummaryMetric("tokens_per_s"),
               log_y=True)])


def grid(keys: Sequence[str]) -> ws.Section:
    columns = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(k), log=k in ("sae.n_latents", "budget_flops", "train.lr"))
               for k in keys]
    measured = [wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(k), log=log)
                for k, log in (("n_tokens", True), ("l0", False), ("objective", True))]
    plot = wr.ParallelCoordinatesPlot(title="what was varied, and what came of it", columns=columns + measured)
    return section("the grid", [plot], 1)


def laws() -> ws.Section:
    return section("laws", [wr.MediaBrowser(title="figures", media_keys=["figures"], num_columns=2)], 1)


def varying(runs: Sequence[Tracked]) -> list[str]:
    """Dotted names of what the runs differ in, numbers and names alike; size and budget first."""
    flat = [identity.flatten(r.science) for r in runs]
    keys = [k for k in sorted(set().union(*flat)) if not k.startswith(GRID_LEFT_OUT)
            and len({json.dumps(f.get(k)) for f in flat}) > 1]
    first = ["sae.n_latents", *(["budget_flops"] if any(r.target_flops for r in runs) else [])]
    return [*first, *(k for k in keys if k not in first)]


def size_colours(sizes: Sequence[int]) -> dict[int, str]:
    """viridis over the sizes there are, evenly by rank."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    known = sorted(set(sizes))
    return {n: to_hex(colormaps["viridis"](0.9 * i / max(1, len(known) - 1))) for i, n in enumerate(known)}


def spec(space: ws.Workspace) -> dict[str, Any]:
    """The workspace as wandb stores it, without the random names wandb_workspaces gives its parts."""
    view = json.loads(space._to_model().model_dump_json(by_alias=True, exclude_none=True))
    return {**view, "spec": _without_ids(view["spec"])} if isinstance(view.get("spec"), dict) else _without_ids(view)


def _without_ids(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_ids(v) for k, v in value.items() if k not in ("__id__", "id")}
    return [_without_ids(v) for v in value] if isinstance(value, list) else value


def titles(space: ws.Workspace) -> list[str]:
    """A line per section."""
    return [f"{s.name}: {'; '.join(p.title or 'figures' for p in s.panels)}" for s in space.sections]


def push(space: ws.Workspace, known: Mapping[str, Any]) -> dict[str, Any]:
    """Save it on the server, over the one of an earlier push when `known` names it. Gives the new `known`, with its url."""
    space._internal_name, space._internal_id = known.get("name", ""), known.get("id", "")
    space.save()
    return {"name": space._internal_name, "id": space._internal_id, "url": space.url}
