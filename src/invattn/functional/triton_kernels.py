"""The programs of :mod:`invattn.functional.triton_attention`: softmax attention whose scores never leave the chip.

A program holds one block of rows (queries) or of columns (keys) and walks over the blocks of the other; samples and
heads are one axis, tensors are contiguous. Blocks that reach beyond a tensor, in tokens or in channels, are read as
zeros. Products of matrices are those of the numbers as they are, never rounded to TF32, and the precision of the inputs
is that of everything.

The normaliser of a row is kept as two numbers, its greatest logit and the logarithm of the sum of exponentials relative
to that: their sum, the log-sum-exp, would have lost the digits of the second where scores are large.

Nothing else imports this module, and nothing but a call on a GPU or in Triton's interpreter needs it.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def log_phi(score, KERNEL: tl.constexpr):
    """The logarithm of phi(score), by the formulas of :mod:`invattn.functional.kernels`."""
    if KERNEL == "elu+1":
        # log(1 + s) is off by a rounding of 1 where s is small, which is one of exp of it.
        positive = tl.maximum(score, 0.0)
        score = (score - positive) + tl.log(1.0 + positive)
    elif KERNEL == "softplus":
        exact = tl.log(softplus(tl.maximum(score, -20.0)))
        score = tl.where(score > -20.0, exact, score - tl.exp(tl.minimum(score, -20.0)) / 2)
    return score


@triton.jit
def log_phi_slope(score, KERNEL: tl.constexpr):
    """Its derivative, (log phi)'(score)."""
    if KERNEL == "elu+1":
        slope = 1.0 / (1.0 + tl.maximum(score, 0.0))
    elif KERNEL == "softplus":
        small = tl.exp(-tl.abs(score))
        sigmoid = tl.where(score > 0.0, 1.0, small) / (1.0 + small)
        exact = sigmoid / softplus(tl.maximum(score, -20.0))
        slope = tl.where(score > -20.0, exact, 1.0 - tl.exp(tl.minimum(score, -20.0)) / 2)
    else:
        slope = tl.full(score.shape, 1.0, score.dtype)
    return slope


@triton.jit
def softplus(score):
    """log(1 + exp(score)), with every digit down to where exp underflows: log(1 + t) = log u + (t - (u - 1)) / u."""
    small = tl.exp(-tl.abs(score))
    rounded = 1.0 + small
    return tl.maximum(score, 0.0) + tl.log(rounded) + (small - (rounded - 1.0)) / rounded


@triton.jit
def product(left, right):
    """The product left right^T, in the precision of both."""
    return tl.dot(left, tl.trans(right), input_precision="ieee", out_dtype=left.dtype)


@triton.jit
def block(tensor, first, tokens, WIDTH: tl.constexpr, TOKENS: tl.constexpr, PADDED: tl.constexpr):
    """The rows of a matrix from the given one on: (TOKENS, PADDED) numbers, zeros beyond the matrix."""
    token = first + tl.arange(0, TOKENS)
    channel = tl.arange(0, PADDED)
    inside = (token < tokens)[:, None] & (channel < WIDTH)[None, :]
    return tl.load(tensor + token[:, None] * WIDTH + channel[None, :], mask=inside, other=0.0)


@triton.jit
def write(tensor, values, first, tokens, WIDTH: tl.constexpr, TOKENS: tl.constexpr, PADDED: tl.constexpr):
    """Write a block where :func:`block` reads one."""
    token = first + tl.arange(0, TOKENS)
    channel = tl.arange(0, PADDED)
    inside = (token < tokens)[:, None] & (channel < WIDTH)[None, :]
    tl.store(tensor + token[:, None] * WIDTH + channel[None, :], values, mask=inside)


@triton.jit
def seen(row, column, rows, columns, CAUSAL: tl.constexpr):
    """Which scores of a block there are: inside the matrix and, in a causal order, of no later key."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    if CAUSAL:
        inside = inside & (row[:, None] >= column[None, :])
    return inside


@triton.jit
def normaliser(pairs, token, tokens):
    """The two numbers of each normaliser; zeros beyond the last."""
    greatest = tl.load(pairs + 2 * token, mask=token < tokens, other=0.0)
    log_sum = tl.load(pairs + 2 * token + 1, mask=token < tokens, other=0.0)
    return greatest, log_sum


@triton.jit
def row_products(left, right, ROWS: tl.constexpr):
    """The products left_i . right_i, summed in the order of :func:`product`."""
    position = tl.arange(0, ROWS)
    diagonal = position[:, None] == position[None, :]
    return tl.sum(tl.where(diagonal, product(left, right), 0.0), 1)


@triton.jit
def values(
    query,
    key,
    value,
    minus,
    out,
    sizes,
    rows,
    columns,
    KERNEL: tl.constexpr,
    CAUSAL: tl.constexpr,
    SHIFTED: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write softmax_j(log phi(q_i . k_j) - minus_j) v and the normaliser of each row; minus_j is one of a column."""
    blocks = tl.cdiv(rows, ROWS)
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    first = (tl.program_id(0) % blocks) * ROWS
    key += sample * columns * WIDTH
    value += sample * columns * CHANNELS
    row = first + tl.arange(0, ROWS)
    q = block(query + sample * rows * WIDTH, first, rows, WIDTH, ROWS, PADDED_WIDTH)
    greatest = tl.full([ROWS], float("-inf"), q.dtype)
    total = tl.zeros([ROWS], q.dtype)
    mean = tl.zeros([ROWS, PADDED_CHANNELS], q.dtype)
    stop = columns
    if CAUSAL:
        stop = tl.minimum(columns, first + ROWS)
    for start in range(0, stop, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        logit = log_phi(product(q, block(key, start, columns, WIDTH, COLUMNS, PADDED_WIDTH)), KERNEL)
        if SHIFTED:
            their_greatest, their_log_sum = normaliser(minus + 2 * sample * columns, column, columns)
            logit = (logit - their_greatest[None, :]) - their_log_sum[None, :]
        # Rows beyond the last keep a finite maximum: nothing of theirs is written. Every block has a key for each row
        # that is seen, or comes after one that had: no difference of infinities.
        inside = (column < columns)[None, :]
        if CAUSAL:
            inside = inside & (row[:, None] >= column[None, :])
        logit = tl.where(inside, logit, float("-inf"))
        greater = tl.maximum(greatest, tl.max(logit, 1))
        decay = tl.exp(greatest - greater)
        weight = tl.exp(logit - greater[:, None])
        v = block(value, start, columns, CHANNELS, COLUMNS, PADDED_CHANNELS)
        total = total * decay + tl.sum(weight, 1)
        mean = mean * decay[:, None] + tl.dot(weight, v, input_precision="ieee", out_dtype=v.dtype)
        greatest = greater
    write(out + sample * rows * CHANNELS, mean / total[:, None], first, rows, CHANNELS, ROWS, PADDED_CHANNELS)
    sizes += 2 * sample * rows
    tl.store(sizes + 2 * row, greatest, mask=row < rows)
    tl.store(sizes + 2 * row + 1, tl.log(total), mask=row < rows)


@triton.jit
def gradients_by_rows(
    incoming,
    query,
    key,
    value,
    out,
    sizes,
    means,
    by_query,
    rows,
    columns,
    KERNEL: tl.constexpr,
    CAUSAL: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write the gradient of <incoming, output> by the queries, and means_i = incoming_i . output_i.

    A weight of 1 has a gradient of exactly 0, as in the formula: incoming_i . v_j less that mean.
    """
    blocks = tl.cdiv(rows, ROWS)
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    first = (tl.program_id(0) % blocks) * ROWS
    key += sample * columns * WIDTH
    value += sample * columns * CHANNELS
    row = first + tl.arange(0, ROWS)
    q = block(query + sample * rows * WIDTH, first, rows, WIDTH, ROWS, PADDED_WIDTH)
    g = block(incoming + sample * rows * CHANNELS, first, rows, CHANNELS, ROWS, PADDED_CHANNELS)
    greatest, log_sum = normaliser(sizes + 2 * sample * rows, row, rows)
    mean = row_products(g, block(out + sample * rows * CHANNELS, first, rows, CHANNELS, ROWS, PADDED_CHANNELS), ROWS)
    tl.store(means + sample * rows + row, mean, mask=row < rows)
    found = tl.zeros([ROWS, PADDED_WIDTH], q.dtype)
    stop = columns
    if CAUSAL:
        stop = tl.minimum(columns, first + ROWS)
    for start in range(0, stop, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        k = block(key, start, columns, WIDTH, COLUMNS, PADDED_WIDTH)
        v = block(value, start, columns, CHANNELS, COLUMNS, PADDED_CHANNELS)
        score = product(q, k)
        logit = (log_phi(score, KERNEL) - greatest[:, None]) - log_sum[:, None]
        weight = tl.exp(tl.where(seen(row, column, rows, columns, CAUSAL), logit, float("-inf")))
        by_score = weight * (product(g, v) - mean[:, None]) * log_phi_slope(score, KERNEL)
        found += tl.dot(by_score, k, input_precision="ieee", out_dtype=k.dtype)
    write(by_query + sample * rows * WIDTH, found, first, rows, WIDTH, ROWS, PADDED_WIDTH)


@triton.jit
def gradients_by_columns(
    incoming,
    query,
    key,
    value,
    sizes,
    means,
    by_key,
    by_value,
    rows,
    columns,
    KERNEL: tl.constexpr,
    CAUSAL: tl.constexpr,
    WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    PADDED_CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write the gradients of <incoming, output> by the keys and by the values; means as by the queries."""
    blocks = tl.cdiv(columns, COLUMNS)
    sample = (tl.program_id(0) // blocks).to(tl.int64)
    first = (tl.program_id(0) % blocks) * COLUMNS
    query += sample * rows * WIDTH
    incoming += sample * rows * CHANNELS
    column = first + tl.arange(0, COLUMNS)
    k = block(key + sample * columns * WIDTH, first, columns, WIDTH, COLUMNS, PADDED_WIDTH)
    v = block(value + sample * columns * CHANNELS, first, columns, CHANNELS, COLUMNS, PADDED_CHANNELS)
    found_key = tl.zeros([COLUMNS, PADDED_WIDTH], k.dtype)
    found_value = tl.zeros([COLUMNS, PADDED_CHANNELS], k.dtype)
    begin = 0
    if CAUSAL:
        begin = (first // ROWS) * ROWS
    for start in range(begin, rows, ROWS):
        row = start + tl.arange(0, ROWS)
        q = block(query, start, rows, WIDTH, ROWS, PADDED_WIDTH)
        g = block(incoming, start, rows, CHANNELS, ROWS, PADDED_CHANNELS)
        greatest, log_sum = normaliser(sizes + 2 * sample * rows, row, rows)
        mean = tl.load(means + sample * rows + row, mask=row < rows, other=0.0)
        score = product(q, k)
        logit = (log_phi(score, KERNEL) - greatest[:, None]) - log_sum[:, None]
        weight = tl.exp(tl.where(seen(row, column, rows, columns, CAUSAL), logit, float("-inf")))
        by_score = weight * (product(g, v) - mean[:, None]) * log_phi_slope(score, KERNEL)
        found_key += tl.dot(tl.trans(by_score), q, input_precision="ieee", out_dtype=q.dtype)
        found_value += tl.dot(tl.trans(weight), g, input_precision="ieee", out_dtype=g.dtype)
    write(by_key + sample * columns * WIDTH, found_key, first, columns, WIDTH, COLUMNS, PADDED_WIDTH)
    write(by_value + sample * columns * CHANNELS, found_value, first, columns, CHANNELS, COLUMNS, PADDED_CHANNELS)
