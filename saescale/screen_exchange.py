"""What the terminal shows of an SAE that was measured, and of files for the hub."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from saescale.screen import console

SHOWN = ("fvu", "mse", "l0", "objective", "ce_recovered", "delta_ce", "ce_clean", "ce_with_sae", "ce_zero_ablated")


def show_measured(content: Mapping[str, Any]) -> None:
    """Every metric with its standard error over documents; a missing one is a dash."""
    metrics = content["metrics"]
    about = f"{content['name']}: {content['kind']} of {content['format']}, n_latents {content['n_latents']:,}"
    console.print(escape(f"{about}; {content['n_alive']:,} alive in {content['alive_window_tokens']:,} held-out tokens"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name, side in (("metric", "left"), ("value", "right"), ("standard error", "right")):
        table.add_column(name, justify=side, no_wrap=True)
    for name in SHOWN:
        value, error = metrics.get(name), metrics.get(f"{name}_se")
        table.add_row(name, "-" if value is None else f"{value:.5g}", "-" if error is None else f"{error:.2g}")
    console.print(table)


def show_parcel(sizes: Mapping[str, int], unfinished: int) -> None:
    """Every file and its size."""
    for name, size in sizes.items():
        console.print(f"{size:>12,}  {escape(name)}", soft_wrap=True, highlight=False)
    if unfinished:
        console.print(f"{unfinished} runs are not finished and are left out.")
