"""The compiled loops behind kernels.numba. Each works on a range [first, last) of tokens, latents or parameters.

What is computed for one token, latent or block does not depend on the range it was part of, so the number of threads changes no
bit. `reassoc` lets the compiler add in SIMD lanes: one fixed order for one instruction set and one length. NaN and Inf are kept.
Inner loops count from 0: an index that might be negative keeps the compiler from using SIMD. A slice counts references, on which
threads contend: none inside loops over few numbers.
"""

import numpy as np
from numba import njit

ADDED_AT_ONCE = 4  # rows summed in one pass: their loads overlap, and the sum is read and written a quarter as often
SCANNED_AT_ONCE = 16  # entries looked at together for one that is large enough
NORM_BLOCK = 8192
_BEYOND_INFINITY = np.int32(0x7F800000)
_MAGNITUDE = np.int32(0x7FFFFFFF)


def _compiled(function, **options):
    """Compiled at the first call and kept on disk where Python keeps its own compiled files."""
    try:
        return njit(function, nogil=True, error_model="numpy", cache=True, **options)
    except RuntimeError:  # no folder to keep it in
        return njit(function, nogil=True, error_model="numpy", **options)


def exact(function):
    return _compiled(function)


def added_in_lanes(function):
    return _compiled(function, fastmath={"reassoc", "contract"})


@exact
def at_least(keys, bound):
    """How many of keys are >= bound."""
    count = np.int32(0)
    for j in range(len(keys)):
        count += keys[j] >= bound
    return count


@exact
def threshold(keys, k, most):
    """The largest bound >= 1 that at least k, and if possible no more than `most`, of keys reach; 1 if fewer than k do."""
    low, high = np.int64(1), np.int64(np.max(keys)) + 1 if len(keys) else np.int64(1)
    while high - low > 1:
        middle = (low + high) // 2
        count = at_least(keys, np.int32(middle))
        if count < k:
            high = middle
            continue
        low = middle
        if count <= most:
            break
    return np.int32(low)


@exact
def lane_maxima(keys, token, maxima):
    """maxima[i] = the largest of keys[token, :, i]; returns whether the token has a NaN."""
    n_chunks, lanes = keys.shape[1:]
    largest = np.int32(0)
    for i in range(lanes):
        maxima[i] = keys[token, 0, i]
    for chunk in range(n_chunks):
        for i in range(lanes):
            key = keys[token, chunk, i]
            maxima[i] = max(maxima[i], key)
            largest = max(largest, key & _MAGNITUDE)
    return largest > _BEYOND_INFINITY


@exact
def reaching(keys, token, maxima, bound, found, columns):
    """Entries of the token that reach bound, and their latents, lane by lane; returns how many."""
    n_chunks, lanes = keys.shape[1:]
    count = 0
    for i in range(lanes):
        if maxima[i] >= bound:
            for chunk in range(n_chunks):
                if keys[token, chunk, i] >= bound:
                    found[count], columns[count] = keys[token, chunk, i], chunk * lanes + i
                    count += 1
    return count


@exact
def keep(k, found, columns, values, latents):
    """Write the k largest of found, in their order; of equal ones at the edge the first. Pad with inactive latents."""
    edge, spare = np.int32(0), 0
    if len(found) > k:
        edge = threshold(found, k, k)
        spare = k - at_least(found, edge + 1) if edge < _MAGNITUDE else k
    kept = 0
    for j in range(len(found)):
        if found[j] <= edge:
            if found[j] < edge or spare == 0:
                continue
            spare -= 1
        values[kept], latents[kept] = found[j], columns[j]
        kept += 1
    column = 0
    while kept < k:  # fewer than k positive entries
        taken = False
        for j in range(len(columns)):
            taken |= columns[j] == column
        if not taken:
            values[kept], latents[kept] = 0, column
            kept += 1
        column += 1


@exact
def mended(keys, token):
    """keys[token] with every NaN as +NaN."""
    row = keys[token : token + 1].copy()
    return np.where((row & _MAGNITUDE) > _BEYOND_INFINITY, _MAGNITUDE, row)


@exact
def top_k(first, last, keys, k, values, latents):
    """keys [token, chunk, lane]: latent i is in lane i % lanes. The bits of positive floats order as integers do, +NaN above all;
    negative floats are negative integers.

    The k-th largest of the maxima of the lanes is reached by at least k entries and by few more.
    """
    n = keys.shape[1] * keys.shape[2]
    maxima, found, columns = np.empty(keys.shape[2], np.int32), np.empty(n, np.int32), np.empty(n, np.int64)
    for token in range(first, last):
        if lane_maxima(keys, token, maxima):
            whole = mended(keys, token)
            lane_maxima(whole, 0, maxima)
            count = reaching(whole, 0, maxima, threshold(maxima, k, k + k // 4), found, columns)
        else:
            count = reaching(keys, token, maxima, threshold(maxima, k, k + k // 4), found, columns)
        keep(k, found[:count], columns[:count], values[token], latents[token])


@exact
def n_positive(row):
    count = np.int32(0)
    for j in range(len(row)):
        count += not row[j] <= 0
    return count


@exact
def count_positive(first, last, pre_acts, counts):
    for token in range(first, last):
        counts[token] = n_positive(pre_acts[token])


@exact
def positive(first, last, pre_acts, row_offsets, values, latents):
    n = pre_acts.shape[1]
    whole = n - n % SCANNED_AT_ONCE
    for token in range(first, last):
        at, row = row_offsets[token], pre_acts[token]
        for start in range(0, whole, SCANNED_AT_ONCE):
            part, here = row[start : start + SCANNED_AT_ONCE], False
            for j in range(SCANNED_AT_ONCE):
                here |= not part[j] <= 0
            if here:
                for j in range(SCANNED_AT_ONCE):
                    if not part[j] <= 0:
                        values[at], latents[at] = part[j], start + j
                        at += 1
        for j in range(whole, n):
            if not row[j] <= 0:
                values[at], latents[at] = row[j], j
                at += 1


@added_in_lanes
def add_rows(out, i, weights, order, columns, start, stop, rows):
    """out[i] += sum over p in [start, stop) of weights[order[p]] rows[columns[p]]."""
    d, whole = out.shape[1], stop - (stop - start) % ADDED_AT_ONCE
    for p in range(start, whole, ADDED_AT_ONCE):
        a, b, c, e = columns[p], columns[p + 1], columns[p + 2], columns[p + 3]
        u, v, w, z = weights[order[p]], weights[order[p + 1]], weights[order[p + 2]], weights[order[p + 3]]
        for j in range(d):
            out[i, j] += u * rows[a, j] + v * rows[b, j] + w * rows[c, j] + z * rows[e, j]
    for p in range(whole, stop):
        a, u = columns[p], weights[order[p]]
        for j in range(d):
            out[i, j] += u * rows[a, j]


@added_in_lanes
def dot(a, b):
    total = np.float32(0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@added_in_lanes
def errors(first, last, row_offsets, latents, values, positions, W_dec, x, minus_e, along):
    d = W_dec.shape[1]
    for token in range(first, last):
        start, stop = row_offsets[token], row_offsets[token + 1]
        for j in range(d):
            minus_e[token, j] = -x[token, j]
        add_rows(minus_e, token, values, positions, latents, start, stop, W_dec)
        for p in range(start, stop):
            latent, total = latents[p], np.float32(0)
            for j in range(d):
                total += minus_e[token, j] * W_dec[latent, j]
            along[p] = total


@exact
def group(latents, row_offsets, latent_offsets, order, tokens):
    """Counting sort: pairs by latent, then by token. latent_offsets [n_latents + 1] starts as zeros."""
    n_latents = len(latent_offsets) - 1
    for p in range(len(latents)):
        latent_offsets[latents[p] + 1] += 1
    for i in range(n_latents):
        latent_offsets[i + 1] += latent_offsets[i]
    free = latent_offsets.copy()
    for token in range(len(row_offsets) - 1):
        for p in range(row_offsets[token], row_offsets[token + 1]):
            at = free[latents[p]]
            free[latents[p]] += 1
            order[at], tokens[at] = p, token


@exact
def sum_pairs(latents, weights, sums):
    for p in range(len(latents)):
        sums[latents[p]] += weights[p]


@added_in_lanes
def squares(first, last, flat, totals):
    """totals[b] = sum of squares of block b of NORM_BLOCK entries of flat."""
    for b in range(first, last):
        block = flat[b * NORM_BLOCK : (b + 1) * NORM_BLOCK]
        totals[b] = dot(block, block)


@exact
def adam_of(params, grad, exp_avg, exp_avg_sq, rule):
    one = np.float32(1)
    scale, beta1, beta2, eps, step_size, root_scale = rule
    for j in range(len(params)):
        g = grad[j] * scale
        m = beta1 * exp_avg[j] + (one - beta1) * g
        v = beta2 * exp_avg_sq[j] + (one - beta2) * (g * g)
        exp_avg[j], exp_avg_sq[j] = m, v
        params[j] -= step_size * m / (np.sqrt(v) * root_scale + eps)


@exact
def adam(first, last, params, grad, exp_avg, exp_avg_sq, rule):
    adam_of(params[first:last], grad[first:last], exp_avg[first:last], exp_avg_sq[first:last], rule)


@added_in_lanes
def adam_of_unit_rows(first, last, start, d, params, grad, exp_avg, exp_avg_sq, rule):
    """Rows [first, last) of a matrix of width d that begins at params[start]: the update, then each row divided by its norm."""
    for i in range(first, last):
        begin, end = start + i * d, start + (i + 1) * d
        row = params[begin:end]
        adam_of(row, grad[begin:end], exp_avg[begin:end], exp_avg_sq[begin:end], rule)
        scale = np.float32(1) / np.sqrt(dot(row, row))
        for j in range(d):
            row[j] *= scale
