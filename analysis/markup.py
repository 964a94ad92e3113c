"""Tables of the report, as HTML."""

from html import escape


def table(columns: list[tuple[str, bool]], rows: list[list], marked: int | None = None) -> str:
    """columns: (heading, is a number). Cells are escaped; column `marked` is coloured by being 'bracketed' or not."""
    head = "".join(f'<th class="{"n" if numeric else ""}">{escape(name)}</th>' for name, numeric in columns)
    body = ""
    for row in rows:
        body += "<tr>"
        for i, (cell, (_, numeric)) in enumerate(zip(row, columns, strict=True)):
            name = "n" if numeric else "" if i != marked else "ok" if str(cell).startswith("bracketed") else "off"
            body += f'<td class="{name}">{escape(str(cell))}</td>'
        body += "</tr>\n"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'
