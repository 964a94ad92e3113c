import math
import re
from html.parser import HTMLParser

import pytest

from analysis import figures
from analysis.report import write_report
from analysis.sweep_fit import fit_sweep

NASTY = "<script>alert('x')</script> & \"quotes\""
VOID = {"meta", "img", "br", "link"}


class Balanced(HTMLParser):
    """Collects tags and fails on one closed out of order."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page_of(make_plan, make_table, sweep_of, tmp_path_factory):
    def page(sweep=None, question="How does loss fall?", spoil=None, excluded=()):
        folder = tmp_path_factory.mktemp("sweep")
        sweep = sweep or sweep_of(run_sd=0.01)
        plan, df = make_plan(sweep, question=question)[0], make_table(sweep)
        plan["excluded"] = list(excluded)
        if spoil:
            spoil(df)
        fits = fit_sweep(df, draws=100)
        made = [{"name": "valleys", "title": "Valleys", "caption": "x & y", "svg": "valleys.svg", "png": "valleys.png"}]
        path = write_report(folder, plan, df, fits, made)
        return path, path.read_text(), fits

    return page


@pytest.fixture(scope="module")
def plain(page_of):
    return page_of()


def test_the_page_is_well_formed_and_needs_no_script(plain):
    parser = Balanced()
    parser.feed(plain[1])
    assert parser.open == [] and "script" not in {tag for tag, _ in parser.seen}


def test_the_question_stands_first(plain):
    assert "How does loss fall?" in plain[1].split("<h2>")[0]


def test_every_linked_figure_exists(make_plan, make_table, tmp_path):
    df = make_table()
    fits = fit_sweep(df, draws=100)
    made = [figures.write("optimal_allocation", tmp_path / "report" / "figures", df, fits)]
    path = write_report(tmp_path, make_plan()[0], df, fits, made)
    links = re.findall(r'(?:src|href)="(figures/[^"]+)"', path.read_text())
    assert {link.rsplit(".")[-1] for link in links} == {"svg", "png"}
    assert all((path.parent / link).is_file() for link in links)


def test_nothing_is_fetched_from_elsewhere(plain):
    assert "http://" not in plain[1] and "https://" not in plain[1]


def test_the_exponents_stand_in_the_page_with_their_intervals(plain):
    exponent = plain[2]["laws"]["n_latents"]["exponent"]
    assert f"{exponent['estimate']:.3f}" in plain[1]
    assert f"{exponent['lo']:.3f} to {exponent['hi']:.3f}" in plain[1]


def test_it_says_how_it_was_made(plain):
    assert "9f31c2abcd" in plain[1] and plain[2]["data_hash"] in plain[1] and plain[2]["versions"]["scipy"] in plain[1]


def test_the_same_inputs_give_the_same_page(page_of, plain):
    assert page_of()[1] == plain[1]


def test_everything_user_given_is_escaped(page_of):
    def spoil(df):
        df.loc[0, ["state", "reason", "run_id", "objective"]] = ["failed", NASTY, NASTY, math.nan]

    excluded = [{"grid": NASTY, "cell": {NASTY: NASTY}, "reason": NASTY}]
    _, text, _ = page_of(question=NASTY, spoil=spoil, excluded=excluded)
    assert "<script" not in text and text.count("&lt;script&gt;") >= 7
    Balanced().feed(text)


def test_runs_without_a_result_and_excluded_cells_are_listed_with_reasons(page_of):
    def spoil(df):
        df.loc[0, ["state", "reason", "objective"]] = ["missing", "not started", math.nan]

    cell = {"grid": "isoflop", "cell": {"sae.n_latents": 128}, "reason": "needs 9.9M tokens"}
    _, text, _ = page_of(spoil=spoil, excluded=[cell])
    assert "not started" in text and "sae.n_latents=128" in text and "needs 9.9M tokens" in text


def test_a_warning_is_explained_in_words(page_of, sweep_of):
    _, text, fits = page_of(sweep=sweep_of(budgets=(2.5e10, 1e11)))
    assert "fewer_than_3_bracketed" in fits["warnings"]
    assert "so no exponent is reported" in text and "No exponent yet" in text


def test_a_sweep_without_results_still_has_a_page(make_plan, tmp_path):
    from analysis.tables import build_table

    plan = make_plan()[0]
    df = build_table(plan, tmp_path)
    text = write_report(tmp_path, plan, df, fit_sweep(df, draws=100), []).read_text()
    assert "No exponent yet" in text and "not started" in text
