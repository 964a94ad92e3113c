"""What kernels.triton_device launches. Sizes in capitals are compile-time and powers of two; masks take care of odd shapes.

A key is the int32 that holds the bits of ReLU(pre-activation): its order is that of floats >= 0, with NaN above all. -1 is an
entry outside the row. Sums are taken in one order whatever the GPU does first; the only atomics add integers.
"""

import triton
import triton.language as tl


@triton.jit
def _keys(products, bias, only, row, columns, n_latents, HAS_BIAS: tl.constexpr, HAS_ONLY: tl.constexpr):
    """Keys of products [token, latent] (+ bias [latent]) at `columns` of `row`; 0 for latents that only [latent] leaves out."""
    inside = columns < n_latents
    z = tl.load(products + row * n_latents + columns, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        z += tl.load(bias + columns, mask=inside, other=0.0)
    z = tl.where(z <= 0, 0.0, z)
    if HAS_ONLY:
        z = tl.where(tl.load(only + columns, mask=inside, other=0) != 0, z, 0.0)
    return tl.where(inside, z.to(tl.int32, bitcast=True) & 0x7FFFFFFF, -1)


@triton.jit
def _kth_largest(keys, k):
    """The largest number that at least k of keys reach, found bit by bit; 0 where fewer than k are positive."""
    edge = tl.full([], 0, tl.int32)
    for i in range(31):
        higher = edge | (tl.full([], 1, tl.int32) << (30 - i))
        edge = tl.where(tl.sum((keys >= higher).to(tl.int32)) >= k, higher, edge)
    return edge


@triton.jit
def _keep(keys, columns, edge, spare, place, values, latents):
    """Stores, from `place` on, the keys above edge and the first `spare` of those equal to it. Returns (spare, place) after."""
    equal = (keys == edge).to(tl.int32)
    kept = (keys > edge) | ((equal > 0) & (tl.cumsum(equal, 0) <= spare))
    at = place + tl.cumsum(kept.to(tl.int32), 0) - 1
    tl.store(values + at, keys.to(tl.float32, bitcast=True), mask=kept)
    tl.store(latents + at, columns.to(tl.int64), mask=kept)
    return spare - tl.minimum(spare, tl.sum(equal)), place + tl.sum(kept.to(tl.int32))


@triton.jit
def candidates(products, bias, only, n_latents, k, found, columns_found, counts,
               LANES: tl.constexpr, CAPACITY: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_ONLY: tl.constexpr):
    """Per token: the positive entries that may be among the k largest, in found and columns_found [token, CAPACITY], and counts
    [token] how many they are (more than CAPACITY: the rest is not stored).

    Lane l of a row are its entries l, l + LANES, ...: k entries at least reach the k-th largest lane maximum, few more.
    """
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, LANES)
    largest = tl.full([LANES], -1, tl.int32)
    for first in range(0, n_latents, LANES):
        largest = tl.maximum(largest, _keys(products, bias, only, row, first + lanes, n_latents, HAS_BIAS, HAS_ONLY))
    floor = tl.maximum(_kth_largest(largest, k), 1)
    count = tl.full([], 0, tl.int32)
    for first in range(0, n_latents, LANES):
        columns = first + lanes
        keys = _keys(products, bias, only, row, columns, n_latents, HAS_BIAS, HAS_ONLY)
        reach = (keys >= floor).to(tl.int32)
        at = count + tl.cumsum(reach, 0) - 1
        stored = (reach > 0) & (at < CAPACITY)
        tl.store(found + row * CAPACITY + at, keys, mask=stored)
        tl.store(columns_found + row * CAPACITY + at, columns, mask=stored)
        count += tl.sum(reach)
    tl.store(counts + row, count)


@triton.jit
def _keep_found(row, count, k, found, columns_found, values, latents, CAPACITY: tl.constexpr):
    slots = tl.arange(0, CAPACITY)
    keys = tl.load(found + row * CAPACITY + slots, mask=slots < count, other=-1)
    columns = tl.load(columns_found + row * CAPACITY + slots, mask=slots < count, other=0)
    edge = tl.maximum(_kth_largest(keys, k), 1)
    spare = k - tl.sum((keys > edge).to(tl.int32))
    _keep(keys, columns, edge, spare, row * k, values, latents)


@triton.jit
def _keep_of_row(products, bias, only, row, n_latents, k, values, latents,
                 LANES: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_ONLY: tl.constexpr):
    """For rows with so many equal entries that the candidates found no room: 33 passes over the row, and as exact."""
    lanes = tl.arange(0, LANES)
    edge = tl.full([], 0, tl.int32)
    for i in range(31):
        higher = edge | (tl.full([], 1, tl.int32) << (30 - i))
        reached = tl.full([], 0, tl.int32)
        for first in range(0, n_latents, LANES):
            keys = _keys(products, bias, only, row, first + lanes, n_latents, HAS_BIAS, HAS_ONLY)
            reached += tl.sum((keys >= higher).to(tl.int32))
        edge = tl.where(reached >= k, higher, edge)
    larger = tl.full([], 0, tl.int32)
    for first in range(0, n_latents, LANES):
        keys = _keys(products, bias, only, row, first + lanes, n_latents, HAS_BIAS, HAS_ONLY)
        larger += tl.sum((keys > edge).to(tl.int32))
    spare, place = k - larger, row * k
    for first in range(0, n_latents, LANES):
        keys = _keys(products, bias, only, row, first + lanes, n_latents, HAS_BIAS, HAS_ONLY)
        spare, place = _keep(keys, first + lanes, edge, spare, place, values, latents)


@triton.jit
def keep_largest(products, bias, only, n_latents, k, found, columns_found, counts, values, latents,
                 LANES: tl.constexpr, CAPACITY: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_ONLY: tl.constexpr):
    """values and latents [token, k] (zeros before) from the candidates, or from the whole row when there were too many."""
    row = tl.program_id(0).to(tl.int64)
    count = tl.load(counts + row)
    if count <= CAPACITY:
        _keep_found(row, count, k, found, columns_found, values, latents, CAPACITY)
    else:
        _keep_of_row(products, bias, only, row, n_latents, k, values, latents, LANES, HAS_BIAS, HAS_ONLY)


@triton.jit
def count_reaching(products, bias, n_latents, prefix, counts, shift,
                   BLOCK: tl.constexpr, STEPS: tl.constexpr, HAS_BIAS: tl.constexpr):
    """Adds to counts [STEPS] int64 how many keys reach the number in prefix [] + (step << shift), by step."""
    row = tl.program_id(0).to(tl.int64)
    steps = tl.arange(0, STEPS)
    thresholds = tl.load(prefix).to(tl.int32) + (steps << shift)
    reached = tl.zeros([STEPS], tl.int32)
    for first in range(0, n_latents, BLOCK):
        keys = _keys(products, bias, bias, row, first + tl.arange(0, BLOCK), n_latents, HAS_BIAS, False)
        reached += tl.sum((keys[:, None] >= thresholds[None, :]).to(tl.int32), 0)
    tl.atomic_add(counts + steps, reached.to(tl.int64))


@triton.jit
def count_rows(products, bias, n_latents, edge, larger, equal, BLOCK: tl.constexpr, HAS_BIAS: tl.constexpr):
    """Per token how many keys are above the number in edge [], and how many equal it."""
    row = tl.program_id(0).to(tl.int64)
    threshold = tl.load(edge).to(tl.int32)
    n_larger, n_equal = tl.full([], 0, tl.int32), tl.full([], 0, tl.int32)
    for first in range(0, n_latents, BLOCK):
        keys = _keys(products, bias, bias, row, first + tl.arange(0, BLOCK), n_latents, HAS_BIAS, False)
        n_larger += tl.sum((keys > threshold).to(tl.int32))
        n_equal += tl.sum((keys == threshold).to(tl.int32))
    tl.store(larger + row, n_larger)
    tl.store(equal + row, n_equal)


@triton.jit
def keep_rows(products, bias, n_latents, edge, spare, row_offsets, values, latents,
              BLOCK: tl.constexpr, HAS_BIAS: tl.constexpr):
    """Per token, from its row offset on: the keys above the number in edge [], the first spare [token] of equal ones."""
    row = tl.program_id(0).to(tl.int64)
    threshold = tl.load(edge).to(tl.int32)
    left, place = tl.load(spare + row).to(tl.int32), tl.load(row_offsets + row)
    for first in range(0, n_latents, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        keys = _keys(products, bias, bias, row, columns, n_latents, HAS_BIAS, False)
        left, place = _keep(keys, columns, threshold, left, place, values, latents)


@triton.jit
def pair_rows(values, latents, row_offsets, W_dec, x, out, along, d_in,
              D: tl.constexpr, AT_ONCE: tl.constexpr, DECODES: tl.constexpr, SUBTRACTS: tl.constexpr, DOTS: tl.constexpr):
    """Per token: out = sum of value W_dec[latent] over its pairs (less x), and along = each pair's W_dec[latent] . out; without
    DECODES the latter with x in place of out. Pairs of value 0 are not looked at: their `along` is 0."""
    row = tl.program_id(0).to(tl.int64)
    start, stop = tl.load(row_offsets + row), tl.load(row_offsets + row + 1)
    columns = tl.arange(0, D)
    inside = columns < d_in
    if DECODES:
        total = tl.zeros([D], tl.float32)
        for first in range(start, stop, AT_ONCE):
            at = first + tl.arange(0, AT_ONCE)
            value = tl.load(values + at, mask=at < stop, other=0.0)
            latent = tl.load(latents + at, mask=at < stop, other=0)
            looked_at = (value != 0)[:, None] & inside[None, :]
            w = tl.load(W_dec + latent[:, None] * d_in + columns[None, :], mask=looked_at, other=0.0)
            total += tl.sum(value[:, None] * w, 0)
        if SUBTRACTS:
            total -= tl.load(x + row * d_in + columns, mask=inside, other=0.0)
        tl.store(out + row * d_in + columns, total, mask=inside)
    else:
        total = tl.load(x + row * d_in + columns, mask=inside, other=0.0)
    if DOTS:
        for first in range(start, stop, AT_ONCE):
            at = first + tl.arange(0, AT_ONCE)
            value = tl.load(values + at, mask=at < stop, other=0.0)
            latent = tl.load(latents + at, mask=at < stop, other=0)
            looked_at = (value != 0)[:, None] & inside[None, :]
            w = tl.load(W_dec + latent[:, None] * d_in + columns[None, :], mask=looked_at, other=0.0)
            tl.store(along + at, tl.sum(total[None, :] * w, 1), mask=at < stop)


@triton.jit
def sum_rows(order, tokens, latent_offsets, weights, rows, only, out, d_in,
             D: tl.constexpr, AT_ONCE: tl.constexpr, HAS_ONLY: tl.constexpr):
    """out[latent] = sum over its pairs of weight rows[token], D columns per program; rows that `only` leaves out stay."""
    latent = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * D + tl.arange(0, D)
    inside = columns < d_in
    start, stop = tl.load(latent_offsets + latent), tl.load(latent_offsets + latent + 1)
    if HAS_ONLY:
        wanted = tl.load(only + latent) != 0
        stop = tl.where(wanted, stop, start)
        written = inside & wanted
    else:
        written = inside
    total = tl.zeros([D], tl.float32)
    for first in range(start, stop, AT_ONCE):
        at = first + tl.arange(0, AT_ONCE)
        weight = tl.load(weights + tl.load(order + at, mask=at < stop, other=0), mask=at < stop, other=0.0)
        token = tl.load(tokens + at, mask=at < stop, other=0)
        row = tl.load(rows + token[:, None] * d_in + columns[None, :], mask=(at < stop)[:, None] & inside[None, :], other=0.0)
        total += tl.sum(weight[:, None] * row, 0)
    tl.store(out + latent * d_in + columns, total, mask=written)


@triton.jit
def sum_group(order, latent_offsets, weights, sums, n_latents, LATENTS: tl.constexpr, AT_ONCE: tl.constexpr):
    """sums[latent] = sum of weights over its pairs, for LATENTS latents per program."""
    latents = tl.program_id(0) * LATENTS + tl.arange(0, LATENTS)
    inside = latents < n_latents
    start = tl.load(latent_offsets + latents, mask=inside, other=0)
    stop = tl.load(latent_offsets + latents + 1, mask=inside, other=0)
    total = tl.zeros([LATENTS, AT_ONCE], tl.float32)
    for first in range(0, tl.max(stop - start), AT_ONCE):
        at = start[:, None] + first + tl.arange(0, AT_ONCE)[None, :]
        mask = at < stop[:, None]
        total += tl.load(weights + tl.load(order + at, mask=mask, other=0), mask=mask, other=0.0)
    tl.store(sums + latents, tl.sum(total, 1), mask=inside)


@triton.jit
def _updated(at, mask, params, grad, exp_avg, exp_avg_sq, numbers, beta1, rest1, beta2, rest2, eps):
    """Adam on the entries `at`: stores the moments, returns the new parameters. numbers: clipping's scale, step size, 1/root."""
    g = tl.load(grad + at, mask=mask, other=0.0) * tl.load(numbers)
    m = beta1 * tl.load(exp_avg + at, mask=mask, other=0.0) + rest1 * g
    v = beta2 * tl.load(exp_avg_sq + at, mask=mask, other=0.0) + rest2 * (g * g)
    tl.store(exp_avg + at, m, mask=mask)
    tl.store(exp_avg_sq + at, v, mask=mask)
    p = tl.load(params + at, mask=mask, other=0.0)
    return p - tl.load(numbers + 1) * m / (tl.sqrt(v) * tl.load(numbers + 2) + eps)


@triton.jit
def adam(params, grad, exp_avg, exp_avg_sq, numbers, first, last, beta1, rest1, beta2, rest2, eps, BLOCK: tl.constexpr):
    """Entries [first, last)."""
    at = first + tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < last
    p = _updated(at, mask, params, grad, exp_avg, exp_avg_sq, numbers, beta1, rest1, beta2, rest2, eps)
    tl.store(params + at, p, mask=mask)


@triton.jit
def adam_of_unit_rows(params, grad, exp_avg, exp_avg_sq, numbers, first, n_rows, d_in, beta1, rest1, beta2, rest2, eps,
                      ROWS: tl.constexpr, D: tl.constexpr):
    """The n_rows rows of width d_in that begin at `first`: the update, then each row divided by its norm."""
    rows, columns = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, D)
    mask = (rows < n_rows)[:, None] & (columns < d_in)[None, :]
    at = first + rows[:, None] * d_in + columns[None, :]
    p = _updated(at, mask, params, grad, exp_avg, exp_avg_sq, numbers, beta1, rest1, beta2, rest2, eps)
    p = tl.where(mask, p, 0.0)
    norms = tl.where(rows < n_rows, tl.sqrt(tl.sum(p * p, 1)), 1.0)
    tl.store(params + at, p / norms[:, None], mask=mask)
