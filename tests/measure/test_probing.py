"""k-sparse probes: what is chosen where, on latents whose truth is known; and the verb, on dictionaries of the bundled model."""

import numpy as np
from scipy.sparse import csr_matrix

from saescale.measure import probing
from saescale.measure.places import Places
from saescale.records.store import read_json

SWEEP = """\
question: Can these latents tell a keyword?
base: [lm=bundled, data=text_files, sae=topk, train=small, cluster=inprocess]
set: {data.path: {documents}, data.max_train_tokens: 40_000, data.batch_sequences: 8, data.n_ctx: 64, data.held_out_fraction: 0.1,
      train.lr_warmup_tokens: 512, eval.n_tokens: 2048, eval.ce_tokens: 512, budget.min_steps: 10, sae.k: 4}
grids:
  sizes: {sae.n_latents: [32, 64], train.n_tokens: 8192}
concepts: {grid: sizes, inventories: [python], min_tokens: 1}
"""


def task(n=400):
    """Rows that alternate between positive and not; the first half of them is fitted."""
    rows = np.arange(n)
    return probing.Task({"category": "c", "concept": "x", "frequency": 0.1}, rows, rows % 2 == 0, rows < n // 2)


def noise(n, m, seed=0):
    return np.random.default_rng(seed).normal(size=(n, m))


def test_a_latent_that_tells_the_concept_is_found_among_many_and_one_is_enough():
    of = task()
    x = noise(400, 50)
    x[:, 17] += 8 * of.positive
    assert probing.sparse_accuracies(csr_matrix(x), of, [1])[1] > 0.99
    assert probing.sparse_accuracies(csr_matrix(-x), of, [1])[1] > 0.99  # it may also be off where the concept is
    assert abs(probing.sparse_accuracies(csr_matrix(noise(400, 50)), of, [1])[1] - 0.5) < 0.12


def test_what_tells_it_in_the_tested_documents_alone_is_not_chosen():
    of = task()
    x = noise(400, 2)
    x[of.fitting, 0] += 2 * of.positive[of.fitting]
    x[~of.fitting, 1] += 50 * of.positive[~of.fitting]
    assert abs(probing.sparse_accuracies(csr_matrix(x), of, [1])[1] - 0.5) < 0.12


def test_a_concept_of_two_latents_needs_two_and_all_inputs_tell_what_sparse_ones_cannot():
    of = task(2000)
    halves = np.random.default_rng(1).random(2000) < 0.5
    x = noise(2000, 30) * 0.1
    x[:, 3] += of.positive & halves
    x[:, 9] += of.positive & ~halves
    found = probing.sparse_accuracies(csr_matrix(x), of, [1, 2])
    assert found[1] < 0.8 and found[2] > 0.97
    spread = noise(2000, 30) + 0.7 * of.positive[:, None]  # a little in every coordinate
    assert probing.accuracy(spread, of) > probing.sparse_accuracies(csr_matrix(spread), of, [1])[1] + 0.2


def test_tasks_have_as_many_negatives_in_each_half_half_of_them_with_the_same_ending():
    rng = np.random.default_rng(0)
    n = 2000
    name = np.where(rng.random(n) < 0.1, 0, -1).astype(np.int32)
    ending = np.where((name < 0) & (rng.random(n) < 0.3), 0, -1).astype(np.int32)
    choosing = np.arange(n) % 2 == 0
    places = Places(np.arange(n), choosing, name, ending, name < 0, np.array([[(choosing & (name == 0)).sum()],
                    [(~choosing & (name == 0)).sum()]]), np.zeros(2), np.zeros(1, np.int32))
    of = probing._task({"name": 0, "category": "c", "concept": "x", "frequency": 0.1}, places, rng)
    for side in (True, False):
        mine = of.fitting == side
        assert of.positive[mine].sum() == (~of.positive)[mine].sum() == (name[choosing == side] == 0).sum()
        negatives = of.rows[mine & ~of.positive]
        assert (ending[negatives] == 0).sum() >= len(negatives) // 2 and (name[negatives] < 0).all()
        assert len(set(negatives)) == len(negatives)


def test_the_verb_probes_every_size_and_its_controls(project, saescale):
    project.sweep("keywords", SWEEP)
    assert saescale("launch", "keywords")[0] == 0
    code, out, err = saescale("probing", "keywords", "--k", "1,3", "--concepts", "6")
    assert code == 0, err
    assert "untrained" in out and "k=3" in out and "next: saescale figures keywords" in out
    found = read_json(project.store / "keywords" / "probing.json")
    assert {(s["dictionary"], s["n_latents"], s["k"]) for s in found["summary"]} == {
        ("activations", 128, None), *(("neurons", 128, k) for k in (1, 3)),
        *((kind, n, k) for kind in ("trained", "untrained") for n in (32, 64) for k in (1, 3))}
    assert all(s["n_concepts"] == found["n_tasks"] == 6 and 0.5 < s["accuracy"] <= 1 for s in found["summary"])
    whole = next(s for s in found["summary"] if s["dictionary"] == "activations")
    assert all(whole["accuracy"] > s["accuracy"] - 0.05 for s in found["summary"])
    assert not list(project.store.glob("keywords/places.bin"))
    for arguments, what in ((("--k", "0"), "from 1"), (("--k", "a"), "no list of numbers"),
                            (("--inventory", "nothing"), "no inventory 'nothing'")):
        code, _, err = saescale("probing", "keywords", *arguments)
        assert code == 2 and what in err and err.count("\n") == 1, err
