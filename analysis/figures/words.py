"""Title and caption of each figure: what the axes are, what to read, what not to."""

WORDS: dict[str, tuple[str, str]] = {
    "loss_vs_compute": (
        "Loss against training compute",
        "Each line is one dictionary size trained for longer and longer (small dots: single seeds). Horizontal:"
        " dense-equivalent training compute 12 * d_in * n_latents * n_tokens in FLOPs. Vertical: held-out objective over"
        " held-out variance. Black diamonds are the fitted minima of the budgets whose valley is bracketed, hollow ones"
        " the best run of a budget without a minimum (an upper bound, not used in the fit). The orange line is the power"
        " law through the filled diamonds with its 95 % band, the blue dashed one the same with a floor.",
    ),
    "isoflop_valleys": (
        "Iso-FLOP valleys",
        "Each curve is one compute budget, spent on dictionaries of different size: too small on the left, trained too"
        " briefly on the right. Horizontal: n_latents. Vertical: held-out objective over held-out variance. The thick"
        " stroke is the parabola through the lowest point and its neighbours, the star its vertex with a 95 % interval over"
        " seeds, which does not hold the parabola's bias: 1 to 7 % too small a size where sizes are an octave apart. A hollow"
        " curve has no minimum inside the sampled sizes and gives no optimum.",
    ),
    "optimal_allocation": (
        "How to spend compute",
        "The size (left) and the training tokens (right) at the minimum of each valley, against compute, with fitted power"
        " laws and 95 % bands. Tokens follow from the size by T = C / (12 d_in n), so the two exponents add up to 1."
        " Hollow points are budgets without a minimum inside the sampled sizes: the best sampled size, which only bounds"
        " the optimum and is not fitted.",
    ),
    "quality_vs_compute": (
        "Quality beside the loss",
        "Left: share of the language model's loss that survives replacing the activations by their reconstruction,"
        " (zero ablated - with SAE) / (zero ablated - clean), 1 is perfect; right: share of latents that fire in the alive"
        " window. One line per dictionary size, mean over seeds (dots: single seeds). A third panel shows the measured l0"
        " when it differs between runs, because then the first is not at matched sparsity.",
    ),
    "others": (
        "Other tools' dictionaries beside this sweep's",
        "Stars: SAEs that were trained elsewhere and measured here by `saescale evaluate`, on the same model, hook and held-out"
        " text as the sweep's own runs (dots, coloured by their training tokens). Left: against the dictionary size; right:"
        " against the measured l0, without which an error says little. How long and on what the stars were trained is not known"
        " here, so they are no points of a scaling law.",
    ),
    "kinds": (
        "Kinds of SAE at the same sparsity",
        "Above: share of the activations' variance that is not reconstructed; below: increase of the language model's loss in"
        " nats per token. Left: against the measured l0, at one dictionary size. Right: against the dictionary size, at one"
        " wanted l0; the axis says how far the measured ones are from it. One line per kind, mean over seeds. Kinds with a"
        " penalty had its weight solved for during training; batchtopk and matryoshka are measured with their inference"
        " threshold. Learning rates are the same for all kinds, which favours none knowingly.",
    ),
    "size_by_k": (
        "Loss by size and by number of active latents",
        "Left: share of the variance not reconstructed against dictionary size, one colour per k, with the law chosen among those"
        " of Gao et al. 2024; dots are seeds. Right: the kinds of SAE at the same sparsity, one line style per l0; bars run"
        " from the least to the largest seed. All at one number of training tokens, which is not convergence for the largest.",
    ),
    "equal_compute": (
        "Kinds of SAE at equal compute",
        "Share of the variance not reconstructed against training compute, left counted as a dense SAE's (12 * d_in * n_latents *"
        " n_tokens), right as the kernels executed it. Faint dots are runs; a line joins the cells (means over seeds) that are"
        " better than all cheaper ones of the same kind, among those within 10 % of the wanted l0: the shortest runs end before a"
        " penalty is solved for."
        " Executed FLOPs say what this implementation multiplies, not what a kind must.",
    ),
    "law_fit": (
        "The fitted surface over its points",
        "Loss against training tokens, one colour per size, with the chosen law and its 95 % band. Where the law can be fitted"
        " WITHOUT the largest budget, that fit is drawn and the points of that budget, hollow, are predicted.",
    ),
    "residuals": (
        "Residuals of the chosen law",
        "ln loss seen minus that of the law (0.01 is about 1 %) against size, tokens and compute; orange: running median. A trend"
        " means that the law bends the wrong way. Colours are sizes; grey is Huber's threshold.",
    ),
    "valleys": (
        "Iso-FLOP valleys by a polynomial",
        "Loss against size at each compute budget, with the polynomial in ln N and its vertex (star, 95 % by the delta method)."
        " Hollow budgets have no resolved minimum: too few sizes, none on one side, or a valley as flat as its noise.",
    ),
    "split": (
        "The split of compute, estimated three ways",
        "The best size (left) and tokens (right) against compute by the fitted surface, by the valleys' minima and by the"
        " frontier of the best runs, each drawn as its power law up to ten times the largest budget, where bars are 95 %"
        " intervals. Points are the minima of the valleys, hollow where not resolved.",
    ),
    "exponents": (
        "What the exponent depends on",
        "The exponent of the best size by every estimator on these very runs, with 95 % intervals. Hollow: a law that the data"
        " reject in favour of a wider one. The spread between lines is what a single interval does not show.",
    ),
    "learning_rate": (
        "Best learning rate by size and horizon",
        "Held-out loss against learning rate, one panel per horizon, one colour per size. A tick on the axis is the best rate of"
        " the law fitted to all sizes and horizons together; a ring marks a best rate at the edge of what was tried.",
    ),
    "rate_ladder": (
        "The best learning rate along a ladder of budgets",
        "Left: held-out loss against learning rate at one size per compute budget, means over seeds; a tick on the axis is the"
        " vertex of the parabola through the lowest point and its neighbours. Right: those vertices against compute, with 95 %"
        " intervals over seeds and a power law. Budgets whose best rate is at an edge of the grid are left out.",
    ),
    "firing": (
        "How often latents fire",
        "Left: share of all latents per bin of firing frequency on the held-out set, one curve per size at its longest horizon"
        " (those that never fired are not in the histogram). Right: the share that never fired, against size. Of several kinds or"
        " wanted l0, none are averaged: the titles say at which wanted l0 both panels are, each size at the longest horizon that"
        " most kinds have and each cell at its best learning rate (lowest fvu). Several kinds have a curve each, left at the"
        " largest size that most of them share.",
    ),
    "concept_presence": (
        "How rare a concept can be and still have a latent",
        "Share of concepts with a latent of their own (held-out score above the threshold) against the concept's frequency,"
        " one curve per dictionary size; points are equal-count bins with 95 % Wilson intervals, a ring is the 50 %"
        " frequency with its bootstrap interval over concepts, > and ≤ mark bounds at the edge of the sampled"
        " frequencies. Left trained dictionaries, right their controls: the same untrained, the raw neurons, and permuted"
        " labels. Only what trained dictionaries do beyond the untrained ones was learned.",
    ),
    "concept_collapse": (
        "One curve in frequency times alive latents",
        "The same points and fits against frequency times alive latents. Orange: the one curve that an exponent of exactly 1"
        " allows, fitted to all trained dictionaries; the dotted upright line is a frequency of 1 / n_alive. Untrained"
        " dictionaries (right, black: their own curve) shift with size too, so a collapse alone is no evidence of learning: the"
        " distance between the two curves and the exponent are.",
    ),
    "concept_f50": (
        "The 50 % frequency against alive latents",
        "Left: frequency at which half of the concepts have a latent, with 95 % intervals over concepts (triangles: bounds, the"
        " 50 % point lies outside the sampled frequencies), the joint laws, and 1 / n_alive dotted. Where a line lies above or"
        " below 1 / n_alive depends on the threshold; its slope hardly does. Right: that exponent under every definition of"
        " presence; hollow blue is the untrained control.",
    ),
    "concept_strip": (
        "Which concepts are present, by category",
        "One dot per concept at its frequency, filled where the dictionary has a latent for it; one strip per dictionary size,"
        " the small grey dots below it are the untrained dictionary of that size. Orange: a frequency of 1 / n_alive.",
    ),
    "oracle": (
        "The law of presence against the truth",
        "Synthetic features of known directions and rates. Left: the frequency at which half of them have a latent, by the known"
        " directions and by the labeller of real models, which sees activations only; the black line is what an ideal dictionary"
        " would have. Right: how many features are held and the held-out loss, relative to the smallest size, beside the model in"
        " which latents go where they help most.",
    ),
    "rubric": (
        "How close to its name a concept's latent fires",
        "Graded by string match, not by a reader: for each concept's latent, the share of its firings at the last token of the"
        " name, at the name or within eight tokens after it, and in a document that has the name, by how strong the firing is."
        " The latent was chosen on other documents. Means over concepts with 95 % intervals. Firing elsewhere is not shown to be"
        " wrong: it may be at another word of the same meaning.",
    ),
    "oversample": (
        "Presence when only the dictionary's mix changes",
        "Two training mixes repeat different documents of the same text. Left: the share of words present in the mix that shows"
        " them more often and in the other, 95 % intervals of the difference over words; named are the words whose documents are"
        " repeated. Right: how much of the dependence of presence on frequency between words a word shows when only its frequency"
        " in the mix changes; 1 is all of it, 0 none. The untrained control cannot depend on the mix.",
    ),
    "manifolds": (
        "Latents over manifolds, and their best division",
        "Features are spheres in four dimensions, one fires at a time, and a token gets one latent. Left and middle: features"
        " with a latent and held-out loss against size, a point per seed at the longest horizon that every size has; dashed, the"
        " division of the same number of latents that leaves least. Right: latents spent on each feature of the largest"
        " dictionary of the steeper corpus, against how often the feature fires.",
    ),
    "concept_completeness": (
        "How much of a list a dictionary holds",
        "Share of the scored concepts of each category that are present, with 95 % Wilson intervals, against dictionary size;"
        " solid lines are closed lists. Names too rare in the training text to be scored are in no share: a list may be"
        " complete here and still lack its rarest members.",
    ),
    "splitting": (
        "How latents split, and which are new",
        "Left: the alive latents of the smallest dictionary by how many alive latents of a larger one point their way (decoder"
        " cosine of 0.7 or more). Middle: share of a larger dictionary's latents that lower the squared error of a smaller one"
        " when added to it alone (novel; the others say again what it has). Right: the same share by cosine to the nearest latent"
        " of the next smaller one, for bins of ten or more. Dotted: the larger dictionary untrained, from a seed of its own."
        " Dictionaries of one seed begin with the same directions, so part of what matches was alike before training.",
    ),
    "probing": (
        "How well k latents tell a concept",
        "Accuracy on unseen documents of a logistic regression on the k latents whose means differ most between a name's "
        " occurrences and as many other tokens, half of them with the same last token; mean over names, bars are two standard"
        " errors over names. Dotted: the untrained dictionary of that size. Thin: k coordinates of the activations; grey: all of"
        " them.",
    ),
    "steering": (
        "Steering by a concept's latent",
        "The latent is clamped to a multiple of its maximum at every position, the SAE's error kept, and the name's"
        " log-probability is compared with the model left alone, at the same places of held-out text. Left: the largest"
        " dictionary. Right: at the positive multiple that is best on half of the places, measured on the other half; bars are"
        " two standard errors over concepts. Concepts are spaced evenly in frequency, not chosen by score. A large push makes any"
        " rare word likelier, so read the concept's own latent beside another concept's latent and a random direction of the same"
        " length and amounts.",
    ),
}
