/* Causal attention over flat tokens, forward and backward: no padding, no copy of a prompt's keys.
 *
 * `edges` cuts the tokens into segments: first the P prompts, then the completions that continue
 * them. The completions of prompt p are the segments P + order[i], bounds[p] <= i < bounds[p + 1].
 * A token of a prompt attends to the prompt up to itself; a token of a completion attends
 * to the whole prompt, and to the completion up to itself.
 *
 * Example (as in aha.batching.layout): two prompts of 3 and 2 tokens, three completions of 4, 1 and 2
 * tokens, the middle one of prompt 1 and the others of prompt 0: edges = 0 3 5 9 10 12,
 * order = 0 2 1, bounds = 0 2 3. Token 4 is the second of prompt 1; token 11 ends completion 2, at
 * position 3 + 1 = 4 of its row.
 *
 * qkv is [tokens, (H + 2K) D]: H query heads, K key heads, K value heads. cos and sin are
 * [tokens, D / 2], the output [tokens, H, D].
 *
 * The weights are not kept: backward computes them again from `lse`, the log of each query's sum of
 * exp(scores) [tokens, H]. Source: Dao et al. 2022 (FlashAttention). Everything inside is float32;
 * bf16 is rounded once, where a head is written.
 *
 * A piece of work is a prompt with all its completions, for one key head. Only that piece adds to
 * the gradients of these keys and values, in the order of `order`: no lock is needed, and no bit
 * depends on how many threads there are or which of them is faster.
 */
#include <math.h>

#include "numbers.h"
#include "workers.h"

struct Job {
    const num *qkv, *grad;
    const float *cos, *sin;
    const int64_t *edges, *order, *bounds;
    int64_t prompts, H, K, D, widest;
    num *out; /* backward: the gradient of qkv */
    float *lse, *scratch;
    int64_t *counters; /* [2]: the next piece of work, the next part of `scratch` */
};

enum { BLOCK_QUERIES = 32 }; /* queries of one block, over all heads that share a key head */

/* Memory of one worker: keys and values of one prompt and one of its completions, and a block of
 * queries with all that is computed from it. Row n of a block is query n % count of head n / count,
 * so the G heads that share a key head are one product with these keys.
 *
 * keys_T and values_T are the same numbers transposed, [D, stride]: the product of queries and keys
 * reads LANES neighbouring positions of one dimension as a vector, that of weights and values LANES
 * dimensions of one position. Either product then runs through memory in steps of one vector. */
typedef struct {
    int64_t stride, group, block;
    float *keys, *keys_T, *values, *values_T, *grad_keys, *grad_values; /* [widest, D] */
    float *queries, *attended, *grad_attended, *grad_queries;           /* [group * block, D] */
    float *weights, *grads;                                             /* [group * block, stride] */
} Scratch;

static Scratch scratch_shape(const Job *j) {
    Scratch s = {.stride = padded(j->widest, LANES), .group = j->H / j->K};
    s.block = BLOCK_QUERIES / s.group > 8 ? BLOCK_QUERIES / s.group : 8;
    return s;
}

static Scratch scratch_at(const Job *j, float *memory) {
    Scratch s = scratch_shape(j);
    const int64_t whole = s.stride * j->D, rows = s.group * s.block;
    float **wholes[] = {&s.keys, &s.keys_T, &s.values, &s.values_T, &s.grad_keys, &s.grad_values};
    for (int i = 0; i < 6; i++, memory += whole) *wholes[i] = memory;
    float **blocks[] = {&s.queries, &s.attended, &s.grad_attended, &s.grad_queries};
    for (int i = 0; i < 4; i++, memory += rows * j->D) *blocks[i] = memory;
    s.weights = memory;
    s.grads = memory + rows * s.stride;
    return s;
}

/* Floats of one worker's scratch memory. */
int64_t aha_scratch_floats(int64_t H, int64_t K, int64_t D, int64_t widest) {
    const Job job = {.H = H, .K = K, .D = D, .widest = widest};
    const Scratch b = scratch_shape(&job);
    return 6 * b.stride * D + b.group * b.block * (4 * D + 2 * b.stride);
}

/* -- products ---------------------------------------------------------------------------------- */

/* C [rows, LANES * wide] = A B, or C + A B. A's element (r, k) is a[r * down + k * along], so that
 * one function multiplies by A (down = its width, along = 1) and by A transposed (down = 1, along =
 * its width). The whole tile of C stays in registers while k runs: TALL * WIDE vectors, as many as
 * the processor has, less those for A and B. `rows` and `wide` are constants after inlining,
 * without which the compiler would keep `total` in memory. k runs in one order whatever the tile,
 * so no number depends on which other rows are computed with it. */
static inline __attribute__((always_inline)) void
tile(const int rows, const int wide, int64_t K, const float *a, int64_t down, int64_t along,
     const float *b, int64_t b_stride, float *c, int64_t c_stride, int add) {
    vec total[TALL][WIDE];
    for (int r = 0; r < rows; r++)
        for (int w = 0; w < wide; w++)
            total[r][w] = add ? load(c + r * c_stride + LANES * w) : (vec){0};
    for (int64_t k = 0; k < K; k++, a += along, b += b_stride)
        for (int w = 0; w < wide; w++) {
            const vec columns_of_b = load(b + LANES * w);
            for (int r = 0; r < rows; r++) total[r][w] += a[r * down] * columns_of_b;
        }
    for (int r = 0; r < rows; r++)
        for (int w = 0; w < wide; w++) store(c + r * c_stride + LANES * w, total[r][w]);
}

static inline __attribute__((always_inline)) void
columns(const int wide, int64_t M, int64_t K, const float *a, int64_t down, int64_t along,
        const float *b, int64_t b_stride, float *c, int64_t c_stride, int add) {
    int64_t m = 0;
    for (; m + TALL <= M; m += TALL)
        tile(TALL, wide, K, a + m * down, down, along, b, b_stride, c + m * c_stride, c_stride, add);
    for (; m + 4 <= M; m += 4)
        tile(4, wide, K, a + m * down, down, along, b, b_stride, c + m * c_stride, c_stride, add);
    for (; m < M; m++)
        tile(1, wide, K, a + m * down, down, along, b, b_stride, c + m * c_stride, c_stride, add);
}

/* C [M, N] = A [M, K] B [K, N], or added to C. N is a multiple of LANES. */
static void product(int64_t M, int64_t N, int64_t K, const float *a, int64_t down, int64_t along,
                    const float *b, int64_t b_stride, float *c, int64_t c_stride, int add) {
    int64_t n = 0;
    for (; n + TILE <= N; n += TILE)
        columns(WIDE, M, K, a, down, along, b + n, b_stride, c + n, c_stride, add);
    for (; n < N; n += LANES)
        columns(1, M, K, a, down, along, b + n, b_stride, c + n, c_stride, add);
}

/* -- heads in and out -------------------------------------------------------------------------- */

static void widen_head(const num *in, float *out, int64_t D) {
    for (int64_t i = 0; i < D; i += LANES) store(out + i, widen(in + i));
}

/* Rotary embedding of a head in place; `sign` -1 rotates back, which takes a gradient through it: a
 * rotation's transpose is its inverse. Source: Su et al. 2021, RoFormer. */
static void rotate_head(const Job *j, float *x, int64_t token, float sign) {
    const int64_t half = j->D / 2;
    const float *cos = j->cos + token * half, *sin = j->sin + token * half;
    for (int64_t i = 0; i < half; i++) {
        const float first = x[i], second = x[half + i], s = sign * sin[i];
        x[i] = first * cos[i] - second * s;
        x[half + i] = second * cos[i] + first * s;
    }
}

/* Load a segment's keys and values to the positions from `at` on: a prompt's at 0, those of each of
 * its completions behind them. The prompt is loaded once and kept for all its completions. */
static void load_keys_values(const Job *j, const Scratch *b, int64_t head, int64_t segment,
                             int64_t at) {
    const int64_t D = j->D, width = (j->H + 2 * j->K) * D;
    for (int64_t token = j->edges[segment]; token < j->edges[segment + 1]; token++, at++) {
        const num *key = j->qkv + token * width + (j->H + head) * D;
        float *wide_key = b->keys + at * D, *wide_value = b->values + at * D;
        widen_head(key, wide_key, D);
        rotate_head(j, wide_key, token, 1.0f);
        widen_head(key + j->K * D, wide_value, D);
        for (int64_t d = 0; d < D; d++) {
            b->keys_T[d * b->stride + at] = wide_key[d];
            b->values_T[d * b->stride + at] = wide_value[d];
        }
    }
}

/* The queries of `count` tokens from `token` on, head by head. */
static void load_queries(const Job *j, const Scratch *b, int64_t head, int64_t token,
                         int64_t count) {
    for (int64_t g = 0; g < b->group; g++)
        for (int64_t i = 0; i < count; i++) {
            float *query = b->queries + (g * count + i) * j->D;
            const int64_t place = (token + i) * (j->H + 2 * j->K) + head * b->group + g;
            widen_head(j->qkv + place * j->D, query, j->D);
            rotate_head(j, query, token + i, 1.0f);
        }
}

static void store_head(num *out, const float *x, int64_t D) {
    for (int64_t i = 0; i < D; i += LANES) narrow(out + i, load(x + i));
}

/* -- forward ----------------------------------------------------------------------------------- */

/* exp(x - top) of the first `seen` numbers of a row, 0 behind them up to `end`; returns the sum. A
 * last vector that is only partly seen is added number by number: the rest of it belongs to keys
 * that the mask hides. A row has memory up to a multiple of LANES, so that vector may be read
 * whole. */
static float exponentials(float *x, int64_t seen, int64_t end, float top) {
    vec total = {0};
    const int64_t whole = seen / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES) {
        const vec weight = exponential(load(x + i) - top);
        store(x + i, weight);
        total += weight;
    }
    float norm = sum(total);
    if (whole < seen) {
        const vec weight = exponential(load(x + whole) - top);
        for (int64_t i = whole; i < seen; i++) norm += x[i] = weight[i - whole];
    }
    for (int64_t i = seen; i < end; i++) x[i] = 0.0f;
    return norm;
}

static float largest(const float *x, int64_t count) {
    vec most = all(-1e30f);
    const int64_t whole = count / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES) most = pick(load(x + i) > most, load(x + i), most);
    float top = -1e30f;
    for (int64_t i = 0; i < LANES; i++) top = most[i] > top ? most[i] : top;
    for (int64_t i = whole; i < count; i++) top = x[i] > top ? x[i] : top;
    return top;
}

/* The output of a segment's queries; `before` keys of its prompt stand before its own.
 *
 * Block by block: query i of a block that begins at `done` attends to before + done + i + 1 keys,
 * and no key beyond the block's last query is computed. Example: a completion of 40 tokens behind a
 * prompt of 10, in blocks of 32 (H = K): the first block multiplies by 42 keys, the second by 50.
 * The maximum is subtracted before exp, so that no sum overflows; lse = maximum + log(sum). */
static void attend_segment(const Job *j, const Scratch *b, int64_t head, int64_t segment,
                           int64_t before) {
    const int64_t D = j->D, first = j->edges[segment], length = j->edges[segment + 1] - first;
    for (int64_t done = 0; done < length; done += b->block) {
        const int64_t count = length - done < b->block ? length - done : b->block;
        const int64_t keys = before + done + count, rows = b->group * count;
        load_queries(j, b, head, first + done, count);
        product(rows, padded(keys, LANES), D, b->queries, D, 1, b->keys_T, b->stride, b->weights,
                b->stride, 0);
        for (int64_t n = 0; n < rows; n++) {
            float *row = b->weights + n * b->stride;
            const int64_t i = n % count, seen = before + done + i + 1;
            const float top = largest(row, seen), norm = exponentials(row, seen, keys, top);
            for (int64_t k = 0; k < padded(keys, LANES); k += LANES)
                store(row + k, load(row + k) * (1.0f / norm));
            j->lse[(first + done + i) * j->H + head * b->group + n / count] = top + logf(norm);
        }
        product(rows, D, keys, b->weights, b->stride, 1, b->values, D, b->attended, D, 0);
        for (int64_t n = 0; n < rows; n++) {
            const int64_t place = (first + done + n % count) * j->H + head * b->group + n / count;
            store_head(j->out + place * D, b->attended + n * D, D);
        }
    }
}

static Scratch own_scratch(const Job *j) {
    const int64_t worker = __atomic_fetch_add(j->counters + 1, 1, __ATOMIC_RELAXED);
    return scratch_at(j, j->scratch + worker * aha_scratch_floats(j->H, j->K, j->D, j->widest));
}

static void attend(const Job *j, int64_t unused_first, int64_t unused_last) {
    (void)unused_first, (void)unused_last; /* pieces differ in size: a free worker takes the next */
    const Scratch b = own_scratch(j);
    int64_t piece;
    while ((piece = __atomic_fetch_add(j->counters, 1, __ATOMIC_RELAXED)) < j->prompts * j->K) {
        const int64_t prompt = piece / j->K, head = piece % j->K;
        const int64_t before = j->edges[prompt + 1] - j->edges[prompt];
        load_keys_values(j, &b, head, prompt, 0);
        attend_segment(j, &b, head, prompt, 0);
        for (int64_t i = j->bounds[prompt]; i < j->bounds[prompt + 1]; i++) {
            load_keys_values(j, &b, head, j->prompts + j->order[i], before);
            attend_segment(j, &b, head, j->prompts + j->order[i], before);
        }
    }
}

/* -- backward ---------------------------------------------------------------------------------- */

/* The gradients of a segment's queries, and what they add to those of the keys and values.
 *
 * With weights w = softmax(s) and the gradient g of the output o = w V:
 *     grad w = g Vᵀ,  grad V = wᵀ g,  grad s = w (grad w - sum(w grad w)),
 *     grad Q = grad s K,  grad K = grad sᵀ Q.
 * w = exp(s - lse) needs no sum, as lse has it. Hidden keys have w = 0, and grad w is
 * set to 0 there too: it was computed from memory behind the last key, which may hold anything, and
 * 0 * NaN is NaN. */
static void attend_segment_back(const Job *j, const Scratch *b, int64_t head, int64_t segment,
                                int64_t before) {
    const int64_t D = j->D, first = j->edges[segment], length = j->edges[segment + 1] - first;
    for (int64_t done = 0; done < length; done += b->block) {
        const int64_t count = length - done < b->block ? length - done : b->block;
        const int64_t keys = before + done + count, rows = b->group * count;
        const int64_t wide = padded(keys, LANES);
        load_queries(j, b, head, first + done, count);
        for (int64_t n = 0; n < rows; n++) {
            const int64_t place = (first + done + n % count) * j->H + head * b->group + n / count;
            widen_head(j->grad + place * D, b->grad_attended + n * D, D);
        }
        product(rows, wide, D, b->queries, D, 1, b->keys_T, b->stride, b->weights, b->stride, 0);
        product(rows, wide, D, b->grad_attended, D, 1, b->values_T, b->stride, b->grads, b->stride,
                0);
        for (int64_t n = 0; n < rows; n++) {
            float *weights = b->weights + n * b->stride, *grads = b->grads + n * b->stride;
            const int64_t i = n % count, seen = before + done + i + 1;
            exponentials(weights, seen, wide,
                         j->lse[(first + done + i) * j->H + head * b->group + n / count]);
            for (int64_t k = seen; k < wide; k++) grads[k] = 0.0f;
            vec both = {0};
            for (int64_t k = 0; k < wide; k += LANES) both += load(weights + k) * load(grads + k);
            const float dot = sum(both);
            for (int64_t k = 0; k < wide; k += LANES)
                store(grads + k, load(weights + k) * (load(grads + k) - dot));
        }
        product(rows, D, keys, b->grads, b->stride, 1, b->keys, D, b->grad_queries, D, 0);
        product(keys, D, rows, b->weights, 1, b->stride, b->grad_attended, D, b->grad_values, D, 1);
        product(keys, D, rows, b->grads, 1, b->stride, b->queries, D, b->grad_keys, D, 1);
        for (int64_t n = 0; n < rows; n++) {
            const int64_t token = first + done + n % count;
            const int64_t place = token * (j->H + 2 * j->K) + head * b->group + n / count;
            rotate_head(j, b->grad_queries + n * D, token, -1.0f);
            store_head(j->out + place * D, b->grad_queries + n * D, D);
        }
    }
}

/* Write the gradients of a segment's keys and values, once all queries have added to them: those of
 * a completion after its own queries, those of a prompt after the queries of all its completions.
 * */
static void store_key_value_grads(const Job *j, const Scratch *b, int64_t head, int64_t segment,
                                  int64_t at) {
    const int64_t D = j->D;
    for (int64_t token = j->edges[segment]; token < j->edges[segment + 1]; token++, at++) {
        num *key = j->out + (token * (j->H + 2 * j->K) + j->H + head) * D;
        rotate_head(j, b->grad_keys + at * D, token, -1.0f);
        store_head(key, b->grad_keys + at * D, D);
        store_head(key + j->K * D, b->grad_values + at * D, D);
    }
}

static void clear_key_value_grads(const Job *j, const Scratch *b, int64_t at, int64_t count) {
    memset(b->grad_keys + at * j->D, 0, count * j->D * sizeof(float));
    memset(b->grad_values + at * j->D, 0, count * j->D * sizeof(float));
}

static void attend_back(const Job *j, int64_t unused_first, int64_t unused_last) {
    (void)unused_first, (void)unused_last;
    const Scratch b = own_scratch(j);
    int64_t piece;
    while ((piece = __atomic_fetch_add(j->counters, 1, __ATOMIC_RELAXED)) < j->prompts * j->K) {
        const int64_t prompt = piece / j->K, head = piece % j->K;
        const int64_t before = j->edges[prompt + 1] - j->edges[prompt];
        load_keys_values(j, &b, head, prompt, 0);
        clear_key_value_grads(j, &b, 0, before);
        attend_segment_back(j, &b, head, prompt, 0);
        for (int64_t i = j->bounds[prompt]; i < j->bounds[prompt + 1]; i++) {
            const int64_t segment = j->prompts + j->order[i];
            load_keys_values(j, &b, head, segment, before);
            clear_key_value_grads(j, &b, before, j->edges[segment + 1] - j->edges[segment]);
            attend_segment_back(j, &b, head, segment, before);
            store_key_value_grads(j, &b, head, segment, before);
        }
        store_key_value_grads(j, &b, head, prompt, 0);
    }
}

/* `scratch` has `aha_scratch_floats` floats for each thread. */
void aha_attend(const num *qkv, const float *cos, const float *sin, const int64_t *edges,
                const int64_t *order, const int64_t *bounds, num *out, float *lse, float *scratch,
                int64_t tokens, int64_t prompts, int64_t H, int64_t K, int64_t D, int64_t widest,
                int threads) {
    int64_t counters[2] = {0, 0};
    const Job job = {.qkv = qkv, .cos = cos, .sin = sin, .edges = edges, .order = order,
                     .bounds = bounds, .out = out, .lse = lse, .scratch = scratch,
                     .counters = counters, .prompts = prompts, .H = H, .K = K, .D = D,
                     .widest = widest};
    spread(&job, attend, prompts * K, tokens * (H + 2 * K) * D, threads);
}

void aha_attend_back(const num *grad, const num *qkv, const float *cos, const float *sin,
                     const int64_t *edges, const int64_t *order, const int64_t *bounds, num *out,
                     float *lse, float *scratch, int64_t tokens, int64_t prompts, int64_t H,
                     int64_t K, int64_t D, int64_t widest, int threads) {
    int64_t counters[2] = {0, 0};
    const Job job = {.grad = grad, .qkv = qkv, .cos = cos, .sin = sin, .edges = edges,
                     .order = order, .bounds = bounds, .out = out, .lse = lse, .scratch = scratch,
                     .counters = counters, .prompts = prompts, .H = H, .K = K, .D = D,
                     .widest = widest};
    spread(&job, attend_back, prompts * K, tokens * (H + 2 * K) * D, threads);
}
