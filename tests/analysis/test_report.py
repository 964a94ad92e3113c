import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis import figures
from analysis.report import write_report
from analysis.report_laws import sections
from analysis.report_made import environments
from analysis.sweep_fit import fit_sweep

NASTY = "<script>alert('x')</script> & \"quotes\""
VOID = {"meta", "img", "br", "link", "input"}


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


def blocks(text):
    """The page's data by the id of its block, as the browser's JSON.parse reads it."""
    found = re.findall(r'<script type="application/json" id="([^"]+)">(.*?)</script>', text, re.DOTALL)
    return {name: json.loads(content) for name, content in found}


def markup(text):
    """The page without its style and scripts."""
    return re.sub(r"<(script|style)[ >].*?</\1>", "", text, flags=re.DOTALL)


def test_the_page_is_well_formed(plain):
    parser = Balanced()
    parser.feed(plain[1])
    assert parser.open == []


def test_only_scripts_of_the_policy_run(plain):
    scripts = re.findall(r"<script>(.*?)</script>", plain[1], re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', plain[1])
    assert len(scripts) == 4 and re.findall(r"'sha256-([^']+)'", policy) == digests
    assert policy.startswith("default-src 'none'") and "unsafe-inline" not in policy.split("style-src")[0]


def test_every_run_and_only_what_varies_is_in_the_table(plain, make_table, sweep_of):
    table = blocks(plain[1])["data-runs"]
    keys = [column["key"] for column in table["columns"]]
    assert len(table["rows"]) == len(make_table(sweep_of(run_sd=0.01)))
    assert {"run_id", "state", "n_latents", "n_tokens", "objective"} <= set(keys) and not {"kind", "k", "l0", "d_in"} & set(keys)
    assert "kind topk" in plain[1]


def test_a_missing_number_is_null_in_the_table(page_of):
    def spoil(df):
        df.loc[0, ["state", "reason", "objective"]] = ["failed", "out of memory", math.nan]

    table = blocks(page_of(spoil=spoil)[1])["data-runs"]
    row = dict(zip([column["key"] for column in table["columns"]], table["rows"][0], strict=True))
    assert (row["state"], row["reason"], row["objective"]) == ("failed", "out of memory", None)


def test_a_plot_knows_its_runs_by_their_row(make_plan, make_table, tmp_path):
    df = make_table()
    fits = fit_sweep(df, draws=100)
    made = [figures.write("loss_vs_compute", tmp_path / "report" / "figures", df, fits)]
    text = write_report(tmp_path, make_plan()[0], df, fits, made).read_text()
    data = blocks(text)
    series = [s for s in data["data-plots"][0]["panels"][0]["series"] if "runs" in s]
    losses = [column["key"] for column in data["data-runs"]["columns"]].index("objective")
    for one in series:
        for y, (row,) in zip(one["y"], one["runs"], strict=True):
            assert math.isclose(data["data-runs"]["rows"][row][losses], y, rel_tol=1e-5)
    assert f"the {len(df)} runs behind it" in text


def test_what_it_was_made_from_lies_in_its_folder(make_plan, make_table, tmp_path):
    df = make_table()
    (tmp_path / "table.csv").write_text("what was collected")
    path = write_report(tmp_path, make_plan()[0], df, fit_sweep(df, draws=100), [])
    assert (path.parent / "data" / "table.csv").read_text() == "what was collected"


def test_machines_and_versions_are_read_from_the_records(tmp_path):
    for name, torch in (("a", "2.13"), ("b", "2.13"), ("c", "2.12")):
        (tmp_path / "by-id" / name).mkdir(parents=True)
        (tmp_path / "by-id" / name / "result.json").write_text(json.dumps({"environment": {"torch": torch, "machine": "x86_64"}}))
    (tmp_path / "by-id" / "c" / "result.json").write_text("{")
    assert environments(tmp_path, ["a", "b", "c", "absent"]) == [["torch 2.13, machine x86_64", 2]]


def test_failures_are_grouped_by_their_reason(page_of):
    def spoil(df):
        df.loc[[0, 1, 2], "state"], df.loc[[0, 1, 2], "reason"] = "failed", "out of memory"

    text = markup(page_of(spoil=spoil)[1])
    assert text.count("out of memory") == 1 and ">3</td>" in text.split("out of memory")[1][:60]


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
    parser = Balanced()
    parser.feed(plain[1])
    links = [attrs[name] for _, attrs in parser.seen for name in ("src", "href") if name in attrs]
    assert links and not [link for link in links if "//" in link]
    assert "url(" not in plain[1].split("</style>")[0]


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
    shown = markup(text)
    assert "<script" not in shown and shown.count("&lt;script&gt;") >= 7
    Balanced().feed(text)
    row = blocks(text)["data-runs"]["rows"][0]
    assert row.count(NASTY) == 2 and text.count("</script>") == 6


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


def test_a_sweep_of_concepts_without_budgets_answers_with_presence_and_says_nothing_of_budgets(tmp_path):
    from analysis.tables import read_table

    study = Path(__file__).parents[2] / "results" / "concepts"
    df, presence = read_table(study / "table.csv"), json.loads((study / "fits.json").read_text())["presence"]
    plan = {"sweep": "concepts", "question": "How rare?", "runs": []}
    text = write_report(tmp_path, plan, df, fit_sweep(df, draws=100) | {"presence": presence}, []).read_text()
    assert "to the power -0.93 (95 %: -1.20 to -0.75), beside -1.30" in text and "229</b><span>concepts scored" in text
    assert "No exponent yet" not in text and "bracketed" not in text and "Read with care" not in text


def test_cards_of_latents_stand_in_the_report_where_there_are_any(make_plan, make_table, tmp_path):
    card = {"schema": 1, "run_id": "r-n64", "latent": 7, "kind": "topk", "n_latents": 64, "state": "silent", "concept": None,
            "text": {"corpus": NASTY, "split": "held_out", "n_tokens": 1000}, "n_fired": 0, "firing_rate": 0.0, "max": 0.0,
            "histogram": [], "top": [], "buckets": [], "logits": None, "neighbours": []}  # fmt: skip
    df = make_table()
    fits = fit_sweep(df, draws=100)
    without = write_report(tmp_path, make_plan()[0], df, fits, []).read_text()
    (tmp_path / "latents" / "r-n64").mkdir(parents=True)
    (tmp_path / "latents" / "r-n64" / "7.json").write_text(json.dumps(card))
    text = write_report(tmp_path, make_plan()[0], df, fits, []).read_text()
    assert 'id="latents"' not in without
    assert "latent 7" in text.split('id="latents"')[1] and "<script" not in markup(text)


def test_what_cannot_be_said_is_said_in_one_place_with_its_reason():
    *_, last = sections({"surface": {"reason": "too few <runs>"}, "convergence": {"reason": "none has"}})
    assert last.count("<h2>") == 1 and "too few &lt;runs&gt;" in last and "none has" in last
    assert sections({}) == []
