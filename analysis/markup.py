"""Pieces of the report as HTML: tables, long lists that start closed, data for its scripts."""

import json
from html import escape

UNSAFE = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}  # inside JSON these stand only in strings


def table(columns: list[tuple[str, bool]], rows: list[list], marked: int | None = None) -> str:
    """columns: (heading, is a number). Cells are escaped; column `marked` is coloured by being 'bracketed' or not."""
    head = "".join(f'<th scope="col" class="{"n" if numeric else ""}">{escape(name)}</th>' for name, numeric in columns)
    body = ""
    for row in rows:
        body += "<tr>"
        for i, (cell, (_, numeric)) in enumerate(zip(row, columns, strict=True)):
            name = "n" if numeric else "" if i != marked else "ok" if str(cell).startswith("bracketed") else "off"
            body += f'<td class="{name}">{escape(str(cell))}</td>'
        body += "</tr>\n"
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'


def folded(listing: str, count: int, what: str) -> str:
    """Long lists start closed."""
    return listing if count <= 8 else f"<details><summary>{count:,} {what}</summary>\n{listing}</details>"


def data_block(name: str, value: object) -> str:
    """A JSON block that a script reads by its id. No text in `value` can end the block or begin another."""
    written = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(UNSAFE)
    return f'<script type="application/json" id="{name}">{written}</script>'


def plain(value: object) -> str:
    """4e+11 rather than 400000000000.0, 16 rather than 16.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)
