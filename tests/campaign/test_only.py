import pytest

from saescale.campaign.only import Only
from saescale.campaign.plan import PlannedRun

SCIENCE = {"sae": {"kind": "topk", "n_latents": 4096, "k": 16, "sparsity_coeff": None}, "lm": {"d_in": 128},
           "train": {"n_tokens": 65536, "batch_tokens": 512, "lr": 1e-3, "seed": 1}}
RUN = PlannedRun("run", "trunk", ("grid",), 1e15, SCIENCE, {})


@pytest.mark.parametrize(("text", "holds"), [
    ("n_latents <= 4096", True), ("n_latents < 4096", False), ("C == 1e15", True), ("C == 1e15 and seed == 0", False),
    ("C == 1e15 and (seed == 0 or k >= 16)", True), ("not seed == 1", False), ("1000 < n_latents <= 5000", True),
    ("lr >= 0.001", True), ("kind == topk", True), ("kind != relu_l1", True), ("seed > -1", True), ("steps == 128", True),
    ("sparsity_coeff < 5", False), ("not sparsity_coeff < 5", True), ("sparsity_coeff != 5", True)])
def test_an_expression_means_what_it_says(text, holds):
    assert Only(text)(RUN) is holds


@pytest.mark.parametrize("text", [
    "__import__('os').system('touch x')", "n_latents.real == 1", "n_latents == n_latents()", "[n_latents] == 1", "", "seed ==",
    "n_latents == 'x'", "n_latents + 1 == 2", "lambda: 1", "n_latents if seed else k", "seed", "1", "seed := 1", "seed is k",
    "n_latents in (1, 2)", "-seed == 1", "seed == True", "seed == None", "seed == 1; k == 2", "((((", "n_latents == 2**99",
    "f'{seed}' == 1", "nope == 1", "seed == 1 and __class__ == 2", "x" * 501, "not " * 120 + "seed == 1 and nope == 1"])
def test_anything_beyond_names_numbers_comparisons_and_or_not_is_refused_in_one_sentence(text):
    with pytest.raises(ValueError, match=r"the condition") as refused:
        Only(text)
    assert "\n" not in str(refused.value)


def test_a_word_is_no_number():
    with pytest.raises(ValueError, match="compares a word with a number"):
        Only("kind == 3")(RUN)
