"""Every warning code and status a fit can carry, in plain words (the report prints them)."""

WARNINGS = {
    "alive_rule_not_met": "The held-out set is too small for the alive window that the largest dictionary needs (100"
    " expected firings per latent), or a dictionary is much sparser than the largest: its n_alive is a lower bound.",
    "best_lr_per_cell": "Some cells were trained at several learning rates; the one with the lowest mean loss is used.",
    "bootstrap_unstable": "More than 5 % of the bootstrap draws lost the minimum of at least one budget: the intervals"
    " leave those draws out and are too narrow.",
    "budgets_unbracketed": "At least one budget has no minimum inside the sampled sizes. It is shown hollow and left"
    " out of every exponent.",
    "cells_missing": "Some planned runs of this budget have no result; the valley is fitted on the sizes that have one.",
    "checks_disagree": "The five-point parabola or the cubic finds no minimum here, or one more than 25 % away from the"
    " three-point parabola's: the position of this minimum depends on how it is fitted.",
    "fewer_than_3_bracketed": "Fewer than three budgets have their minimum inside the sampled sizes, so no exponent is"
    " reported. Add sizes on the side where the minimum ran out of the grid, or add budgets.",
    "floor_at_bound": "The best floor is at the edge of what is allowed: the data do not ask for one in this range.",
    "floor_needs_4_budgets": "A power law with a floor has three parameters and needs at least four bracketed budgets.",
    "floor_not_converged": "The fit with a floor did not pass its convergence certificate: do not use its numbers.",
    "floor_unidentified": "The budgets span less than two decades of compute: the floor and the exponent beside it trade"
    " off against each other and neither should be quoted without its interval.",
    "holdout_loss_missed": "Fitted without its largest budget, the plain power law misses the loss seen there by more"
    " than 5 %: do not extrapolate it.",
    "holdout_not_possible": "Fewer than four bracketed budgets: none can be held out to test the extrapolation.",
    "l0_varies": "The measured l0 differs by more than 1.5 times between runs: fvu and ce_recovered are not at matched"
    " sparsity, only the objective is comparable.",
    "narrow_compute_range": "The bracketed budgets span less than one decade of compute: exponents say little beyond it.",
    "no_finished_runs": "No run with a compute budget has a result yet: there is nothing to fit.",
    "runs_damaged": "Some records are damaged or belong to other settings; they are left out.",
    "runs_failed": "Some runs failed; they are left out.",
    "runs_missing": "Some planned runs have no result yet; they are left out.",
    "several_minima": "The loss rises and falls more than once across sizes: a run may be badly trained.",
    "shallow_valley": "The valley is not deeper than twice the seed noise at its ends: its position is mostly noise.",
    "single_seed": "There is one seed per cell: intervals hold only the scatter of the budgets around the law.",
    "two_seeds": "Seed noise is estimated from two seeds per cell; intervals are approximate.",
}

# Of analysis.fit, for any law on any table.
WARNINGS |= {
    "columns_move_together": "Two columns are almost one (correlation of their logarithms above 0.98): the table cannot tell"
    " their effects apart.",
    "draws_degenerate": "More than 5 % of the resamples lost a term of the law or did not converge: the data hardly carry all"
    " of its parameters.",
    "duplicate_rows": "Some rows are the same in every column that the law reads: if one run was listed twice, it counts twice.",
    "exponent_at_bound": "An exponent is at the edge of what it may be: the table does not determine it.",
    "extrapolation_untested": "Too few small runs to hold out the large ones: the prediction intervals are untested.",
    "few_clusters": "Fewer than ten independent clusters: a wild bootstrap is used, and its intervals are approximate.",
    "few_rows": "Fewer than three rows per parameter: the law is close to passing through the points by construction.",
    "fit_not_converged": "The fit did not pass its convergence certificate: do not use its numbers.",
    "floor_needs_decades": "No column spans two decades: the floor and the exponents beside it trade off against each other and"
    " none should be quoted without its interval.",
    "floor_not_identified": "The data do not bound the floor on both sides: only its interval means something.",
    "intervals_widened": "Fitted to the smaller runs, the law missed the larger ones by more than its intervals allow: prediction"
    " intervals are widened more than 1.5 times to make up for it.",
    "law_misses_cells": "The law is off from the means of repeated cells by more than 5 % and three times the noise within them:"
    " it does not have this table's shape, whatever its intervals say.",
    "lr_at_edge": "The best learning rate of at least one cell is the lowest or highest that was tried there: widen its grid.",
    "lr_no_minimum": "The loss is not clearly convex in ln lr: there is no best learning rate in this table.",
    "no_skill": "On held-out larger runs the law predicts no better than the nearest run or a plain power law.",
    "objective_matters": "An exponent moves by more than one standard error between this objective and least squares: outliers"
    " or a wrong law decide the answer.",
    "one_cluster_decides": "Leaving out a single cluster moves an exponent by more than one standard error.",
    "profile_disagrees": "Bootstrap and profile intervals differ by more than a quarter of their width: the data are few or the"
    " law is strongly curved here; quote the wider.",
    "residuals_structured": "The residuals' signs come in long runs along a column: the law bends differently from the data.",
    "sizes_unconverged": "Some sizes still improved by more than the stop rule allows at their longest horizon and are left out.",
    "starts_disagree": "Fewer than half of the starts reached the best value: the surface has several basins.",
    "term_vanished": "A term of the law is as good as zero: the data do not ask for it. Fit the law without it.",
    "wider_law_needed": "A wider law of the same family fits these data much better (BIC by more than 6) and predicts held-out"
    " runs better: this one is rejected, see diagnostics['wider'].",
    "threshold_below_noise": "Less than a quarter of the residuals lie inside the Huber threshold: this is nearly"
    " least absolute deviations.",
}

STATUSES = {
    "bracketed": "minimum inside the sampled sizes",
    "flat": "all sizes have the same loss",
    "minimum_at_largest_size": "the largest sampled size is the best: the minimum may lie beyond it",
    "minimum_at_smallest_size": "the smallest sampled size is the best: the minimum may lie below it",
    "no_results": "no finished runs",
    "not_convex": "the fitted curve has no minimum",
    "too_few_sizes": "fewer than three sizes have results",
    "vertex_outside": "the fitted minimum lies outside the sampled sizes",
}

# Of analysis.isoflop, frontier, allocation and predict, for any table.
WARNINGS |= {
    "allocations_disagree": "Two of the three estimates of how size should grow with compute differ by more than their paired"
    " 95 % interval: at least one of them rests on a wrong assumption. Trust none before you know which.",
    "budgets_unresolved": "At least one budget has no resolved minimum: too few sizes, none on one side, or a valley as flat as"
    " its noise. It is left out of every exponent and drawn hollow.",
    "exponents_do_not_add_up": "The exponents of size and tokens, fitted apart, do not add up to 1 within 0.05: compute is not"
    " proportional to size times tokens here, or the valleys are badly resolved.",
    "far_extrapolation": "The prediction lies more than one decade outside what was measured: its interval holds the scatter of"
    " the data, not the chance that the law changes on the way.",
    "fewer_than_3_resolved": "Fewer than three budgets have a resolved minimum, so there is no exponent: a line through two"
    " points always fits. Add budgets, or sizes to those there are.",
    "frontier_too_short": "Fewer than five runs lie on the frontier of loss against compute: it gives no exponent.",
    "frontier_unstable": "More than 5 % of the resamples had fewer than three runs on the frontier.",
    "no_interval": "The fit did not pass its certificate, so no interval is given: do not use the number.",
    "optimum_not_interior": "In more than 5 % of the draws the surface has no optimum inside: the split is not determined.",
    "points_repeated": "Some rows agree in size, tokens and loss to the last digit: if they are one run, it counts twice.",
}
STATUSES |= {
    "curvature_uncertain": "the curvature is not known to better than half of itself: the valley may be flat",
    "fewer_than_5_sizes": "fewer than five sizes",
}

# Of analysis.presence.
WARNINGS |= {
    "presence_all": "Every concept is present in every dictionary: no frequency is too rare, so there is no 50 % frequency and no"
    " exponent. Ask for rarer concepts, or train smaller dictionaries.",
    "presence_f50_outside": "At least one dictionary has its 50 % frequency outside the sampled frequencies: it is a bound there,"
    " never a number, and enters only the joint law.",
    "presence_few": "Fewer than ten pairs of concept and dictionary have the rarer outcome: no exponent.",
    "presence_few_concepts": "Fewer than 100 concepts: intervals over concepts are approximate.",
    "presence_few_counts": "Concepts that occur fewer than ten times in the training text are left out, for every dictionary"
    " alike: their frequency is mostly noise.",
    "presence_levels_off": "Presence levels off below 1 even for frequent concepts (`lapse`): the law without a ceiling then has"
    " its q too low, and its 50 % frequencies and the latents that a rare concept asks for too high. Read the q of `lapse`.",
    "presence_no_control": "No untrained dictionaries were scored: a sigmoid that moves with size is no evidence of learning"
    " without them.",
    "presence_none": "No concept is present in any dictionary: nothing can be said but that the 50 % frequency lies above every"
    " sampled one. Ask for more frequent concepts, or train larger dictionaries.",
    "presence_not_rising": "Presence does not rise with frequency: there is no 50 % frequency.",
    "presence_one_size": "Only one size of dictionary was scored: an exponent needs at least two that differ in alive latents.",
    "presence_separated": "Presence is a clean step in frequency: its place is known, its slope is not, and the exponent is given"
    " without a test.",
}
