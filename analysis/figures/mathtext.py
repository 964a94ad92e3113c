"""The mathematics of a figure's labels as plain text with superscripts, for a page that has no TeX."""

import re

Piece = list[str]  # [text, "" | "i" | "sup" | "sub"]
SYMBOLS = {"propto": "∝", "times": "×", "cdot": "·", "leq": "≤", "geq": "≥", "approx": "≈", "sim": "~", "pm": "±", "infty": "∞"}
SYMBOLS |= {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "lambda": "λ", "mu": "μ", "sigma": "σ"}
SYMBOLS |= {"tau": "τ", "Delta": "Δ", "Sigma": "Σ", "rightarrow": "→", "to": "→", "ln": "ln", "log": "log", "ell": "ℓ"}
SPACES = {",": "\u2009", ";": " ", ":": " ", "!": "", " ": " "}
RAISED = str.maketrans("0123456789+-\u2212", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")


def pieces(text: str) -> list[Piece]:
    r"""'$f_{50} \propto C^{-q}$, all' -> [["f", "i"], ["50", "sub"], [" ∝ ", ""], ["C", "i"], ["-q", "sup"], [", all", ""]]."""
    out: list[Piece] = []
    for i, part in enumerate(re.split(r"(?<!\\)\$", text)):
        out += _math(part, "") if i % 2 else [[part.replace("\\$", "$"), ""]]
    merged: list[Piece] = []
    for piece, style in out:
        if merged and merged[-1][1] == style:
            merged[-1][0] += piece
        elif piece:
            merged.append([piece, style])
    return merged


def plain(text: str) -> str:
    """The same in one string: '$\\mathdefault{10^{9}}$' -> '10⁹'; a superscript without a raised form is written ^x."""
    out = ""
    for piece, style in pieces(text):
        raised = piece.translate(RAISED)
        simple = style != "sup" or not any(a == b for a, b in zip(piece, raised, strict=True))
        out += (raised if style == "sup" else piece) if simple else f"^{piece}"
    return out


def _math(body: str, around: str) -> list[Piece]:
    out: list[Piece] = []
    at = 0
    while at < len(body):
        found = re.compile(r"\\([A-Za-z]+)\s?|\\(.)|[\^_]|[{}]|[A-Za-z]|.", re.DOTALL).match(body, at)
        token, at = found.group(0), found.end()
        if token in "^_":
            inner, at = _group(body, at)
            text = "".join(piece for piece, _ in _math(inner, "")).strip("\u2009 ")
            out.append([text, "sup" if token == "^" else "sub"])
        elif found.group(1):
            if out and out[-1][0].isspace():
                out.pop()  # a relation brings its own space
            out += _command(found.group(1), around)
        elif found.group(2):
            out.append([SPACES.get(found.group(2), found.group(2)), around])
        elif token not in "{}":
            out.append([token, "i" if token.isalpha() and not around else around])
    return out


def _command(name: str, around: str) -> list[Piece]:
    if name.startswith("math"):  # \mathdefault, \mathrm: their braces fall away
        return []
    symbol = SYMBOLS.get(name, name)
    return [[f" {symbol} " if symbol in "∝≤≥≈→×" else symbol, around]]


def _group(body: str, at: int) -> tuple[str, int]:
    """What ^ or _ holds: one {group}, or one character; and where it ends."""
    if at >= len(body) or body[at] != "{":
        return body[at : at + 1], at + 1
    depth = 0
    for end in range(at, len(body)):
        depth += {"{": 1, "}": -1}.get(body[end], 0)
        if depth == 0:
            return body[at + 1 : end], end + 1
    return body[at + 1 :], len(body)
