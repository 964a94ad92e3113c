"""Cards as HTML: whatever tokens hold, the page stays a page."""

import re
from html.parser import HTMLParser

import pytest

from analysis.cards import cards_html, cards_section, write_cards
from saescale.records.latents import card_path, read_cards
from saescale.records.store import write_json

NASTY = "</span><script>alert('x')</script>&\"\n\x00"


def place(tokens, acts, peak):
    return {"document": 1, "position": 5, "peak": peak, "tokens": tokens, "acts": acts}


def card(**changes):
    made = {"schema": 1, "run_id": "r-n64", "latent": 7, "kind": "topk", "n_latents": 64, "seed": 0,
            "hook_name": "blocks.2.hook_resid_post", "n_tokens_trained": 100,
            "text": {"corpus": "python_stdlib", "split": "held_out", "n_tokens": 1000},
            "concept": {"concept": "yield", "category": "keywords", "score": 0.9, "frequency": 1e-4},
            "n_fired": 3, "firing_rate": 0.003, "max": 2.0, "state": "alive", "decoder_norm": 1.0, "histogram": [0, 2, 0, 1],
            "top": [place([" a", "b", "c"], [0, 2.0, 1.0], 1)],
            "buckets": [{"low": 0.0, "high": 1.0, "n": 1, "examples": [place(["x"], [1.0], 0)]},
                        {"low": 1.0, "high": 2.0, "n": 2, "examples": []}],
            "logits": {"top": [[" from", 3.0]], "bottom": [["al", -2.0]]},
            "neighbours": [{"run_id": "r-n32", "n_latents": 32, "seed": 0, "n_same_direction": 1, "same_direction_from": 0.7,
                            "nearest": [[3, 0.91], [4, 0.2]]}]}
    return made | changes


class Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen, self.words = [], [], ""

    def handle_starttag(self, tag, attrs):  # noqa: ARG002
        self.seen.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def parsed(html):
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    return parser


def test_no_cards_give_nothing():
    assert cards_html([]) == ""


def test_a_card_shows_whose_latent_it_is_where_it_fires_and_what_it_writes():
    words = parsed(cards_html([card()])).words
    for said in ("latent 7", "best for yield (keywords, score 0.90)", "n_latents 64", "Fires on 3 of 1,000 held-out tokens",
                 "␣from", "+3.00", "-2.00", "3 (0.91), 4 (0.20)", "cosine ≥ 0.7", "silent on 997"):
        assert said in words


def test_every_token_is_shaded_by_its_share_of_the_maximum_and_the_peak_is_marked():
    html = cards_html([card()])
    assert re.search(r'<p class="lc-text"><i>2\.00</i> a<b style="--a:1\.00" title="2">b</b>'
                     r'<span style="--a:0\.50" title="1">c</span></p>', html)


@pytest.mark.parametrize("where", ["top", "logits", "concept", "run_id", "corpus"])
def test_whatever_words_hold_nothing_of_it_becomes_markup(where):
    spoiled = {"top": {"top": [place([NASTY, "b"], [2.0, 0], 0)]},
               "logits": {"logits": {"top": [[NASTY, 1.0]], "bottom": [[NASTY, -1.0]]}},
               "concept": {"concept": {"concept": NASTY, "category": NASTY, "score": None, "frequency": 1e-4}},
               "run_id": {"run_id": NASTY},
               "corpus": {"text": {"corpus": NASTY, "split": "held_out", "n_tokens": 5}}}[where]
    parser = parsed(cards_html([card(**spoiled)]))
    assert "script" not in parser.seen and "alert('x')" in parser.words


def test_a_silent_latent_says_so_and_shows_no_places():
    silent = card(n_fired=0, firing_rate=0.0, max=0.0, state="silent", top=[], histogram=[0] * 4, logits=None, neighbours=[],
                  buckets=[{"low": 0.0, "high": 0.0, "n": 0, "examples": []}], concept=None)
    words = parsed(cards_html([silent])).words
    assert "silent on this text" in words and "Where it fires most" not in words and "No other finished dictionary" in words
    assert "does not write into the residual stream" in words


def test_the_style_touches_nothing_outside_the_cards():
    css = re.search(r"<style>(.*?)</style>", cards_html([card()]), re.S).group(1)
    selectors = re.findall(r"([^{}]+)\{", css)
    assert all(part.strip().startswith(".latent-cards") for s in selectors for part in s.split(","))
    assert "light-dark(" in css  # follows the page's own choice of theme


def test_the_page_needs_no_network_and_the_same_cards_give_the_same_bytes(tmp_path):
    for latent in (7, 8):
        write_json(card_path(tmp_path, "r-n64", latent), card(latent=latent))
    html = write_cards(tmp_path).read_text(encoding="utf-8")
    assert "http" not in html and "src=" not in html and "@import" not in html and parsed(html).seen.count("svg") == 2
    assert write_cards(tmp_path).read_text(encoding="utf-8") == html


def test_a_sweep_without_cards_has_no_section(tmp_path):
    assert cards_section(tmp_path) == ""
    write_json(card_path(tmp_path, "r-n64", 7), card())
    assert cards_section(tmp_path).startswith("<h2>Latents</h2>") and "latent 7" in cards_section(tmp_path)


def test_cards_of_concepts_come_first_and_those_of_another_schema_are_left_out(tmp_path):
    for latent, changes in ((1, {"concept": None}), (2, {}), (3, {"schema": 0})):
        write_json(card_path(tmp_path, "r-n64", latent), card(latent=latent, **changes))
    assert [c["latent"] for c in read_cards(tmp_path)] == [2, 1]
