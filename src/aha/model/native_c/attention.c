/* Causal attention over flat tokens, forward and backward: no padding, no copy of a prompt's keys.
 *
 * `edges` cuts the tokens into runs: first the P prompts, then the rows that continue them. Those of
 * prompt p are `order[bounds[p]]` and those behind it up to `bounds[p + 1]`. A token of a prompt
 * sees the prompt up to itself; one of a row sees the whole prompt, and the row up to itself.
 * qkv is [tokens, (H + 2K) D], cos and sin [tokens, D / 2], what comes out [tokens, H, D].
 *
 * The weights are not kept: backward makes them again from `lse`, the log of each query's sum
 * [tokens, H]. Source: Dao et al. 2022 (FlashAttention). Everything between is float32. One worker
 * has a prompt with all its rows, for one key head, so no sum depends on who had what.
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
    int64_t *taken; /* [2]: pieces of work, and pieces of scratch */
};

enum { TOGETHER = 32 }; /* queries of all heads that share a key, at once */

/* What a worker has for itself: keys and values of one prompt and one row, and a block of queries
 * with all that is made of it. The transposed ones have a line of `stride` for each of D. */
typedef struct {
    int64_t stride, group, block;
    float *keys, *keys_T, *values, *values_T, *grad_keys, *grad_values; /* [widest, D] */
    float *queries, *mixed, *grad_mixed, *grad_queries;                  /* [group * block, D] */
    float *weights, *grads;                                              /* [group * block, stride] */
} Bench;

static Bench bench_of(const Job *j) {
    Bench b = {.stride = padded(j->widest, LANES), .group = j->H / j->K};
    b.block = TOGETHER / b.group > 8 ? TOGETHER / b.group : 8;
    return b;
}

static Bench furnished(const Job *j, float *room) {
    Bench b = bench_of(j);
    const int64_t whole = b.stride * j->D, rows = b.group * b.block;
    float **wholes[] = {&b.keys, &b.keys_T, &b.values, &b.values_T, &b.grad_keys, &b.grad_values};
    for (int i = 0; i < 6; i++, room += whole) *wholes[i] = room;
    float **blocks[] = {&b.queries, &b.mixed, &b.grad_mixed, &b.grad_queries};
    for (int i = 0; i < 4; i++, room += rows * j->D) *blocks[i] = room;
    b.weights = room;
    b.grads = room + rows * b.stride;
    return b;
}


/* Floats of one worker's bench. */
int64_t aha_bench(int64_t H, int64_t K, int64_t D, int64_t widest) {
    const Job job = {.H = H, .K = K, .D = D, .widest = widest};
    const Bench b = bench_of(&job);
    return 6 * b.stride * D + b.group * b.block * (4 * D + 2 * b.stride);
}

/* -- products ---------------------------------------------------------------------------------- */

/* C [rows, LANES * wide] = A B, or C + A B. A's element (r, k) is a[r * down + k * along]. */
static inline __attribute__((always_inline)) void
tile(const int rows, const int wide, int64_t K, const float *a, int64_t down, int64_t along,
     const float *b, int64_t b_stride, float *c, int64_t c_stride, int add) {
    vec total[TALL][WIDE];
    for (int r = 0; r < rows; r++)
        for (int w = 0; w < wide; w++)
            total[r][w] = add ? load(c + r * c_stride + LANES * w) : (vec){0};
    for (int64_t k = 0; k < K; k++, a += along, b += b_stride)
        for (int w = 0; w < wide; w++) {
            const vec some = load(b + LANES * w);
            for (int r = 0; r < rows; r++) total[r][w] += a[r * down] * some;
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

/* -- in and out -------------------------------------------------------------------------------- */

static void widen_head(const num *in, float *out, int64_t D) {
    for (int64_t i = 0; i < D; i += LANES) store(out + i, widen(in + i));
}

/* Rotated in place by a token's position; `sign` -1 turns back. Source: Su et al. 2021, RoFormer. */
static void turn(const Job *j, float *x, int64_t token, float sign) {
    const int64_t half = j->D / 2;
    const float *cos = j->cos + token * half, *sin = j->sin + token * half;
    for (int64_t i = 0; i < half; i++) {
        const float first = x[i], second = x[half + i], s = sign * sin[i];
        x[i] = first * cos[i] - second * s;
        x[half + i] = second * cos[i] + first * s;
    }
}

/* The keys and values of a run, from place `at` of the bench. */
static void fetch(const Job *j, const Bench *b, int64_t head, int64_t run, int64_t at) {
    const int64_t D = j->D, width = (j->H + 2 * j->K) * D;
    for (int64_t token = j->edges[run]; token < j->edges[run + 1]; token++, at++) {
        const num *key = j->qkv + token * width + (j->H + head) * D;
        float *mine = b->keys + at * D, *value = b->values + at * D;
        widen_head(key, mine, D);
        turn(j, mine, token, 1.0f);
        widen_head(key + j->K * D, value, D);
        for (int64_t d = 0; d < D; d++) {
            b->keys_T[d * b->stride + at] = mine[d];
            b->values_T[d * b->stride + at] = value[d];
        }
    }
}

/* The queries of `count` tokens, head by head. */
static void fetch_queries(const Job *j, const Bench *b, int64_t head, int64_t token,
                          int64_t count) {
    for (int64_t g = 0; g < b->group; g++)
        for (int64_t i = 0; i < count; i++) {
            float *mine = b->queries + (g * count + i) * j->D;
            const int64_t place = (token + i) * (j->H + 2 * j->K) + head * b->group + g;
            widen_head(j->qkv + place * j->D, mine, j->D);
            turn(j, mine, token + i, 1.0f);
        }
}

static void put(num *out, const float *x, int64_t D) {
    for (int64_t i = 0; i < D; i += LANES) narrow(out + i, load(x + i));
}

/* -- forward ----------------------------------------------------------------------------------- */

/* exp(x - top) of the first `seen` of a line, 0 behind them up to `end`; returns the sum. Both are
 * less than a vector short of what a line has room for. */
static float weigh(float *x, int64_t seen, int64_t end, float top) {
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

/* A run of queries behind `before` keys of its prompt. */
static void attend_run(const Job *j, const Bench *b, int64_t head, int64_t run, int64_t before) {
    const int64_t D = j->D, first = j->edges[run], length = j->edges[run + 1] - first;
    for (int64_t done = 0; done < length; done += b->block) {
        const int64_t count = length - done < b->block ? length - done : b->block;
        const int64_t keys = before + done + count, rows = b->group * count;
        fetch_queries(j, b, head, first + done, count);
        product(rows, padded(keys, LANES), D, b->queries, D, 1, b->keys_T, b->stride, b->weights,
                b->stride, 0);
        for (int64_t n = 0; n < rows; n++) {
            float *line = b->weights + n * b->stride;
            const int64_t i = n % count, seen = before + done + i + 1;
            const float top = largest(line, seen), norm = weigh(line, seen, keys, top);
            for (int64_t k = 0; k < padded(keys, LANES); k += LANES)
                store(line + k, load(line + k) * (1.0f / norm));
            j->lse[(first + done + i) * j->H + head * b->group + n / count] = top + logf(norm);
        }
        product(rows, D, keys, b->weights, b->stride, 1, b->values, D, b->mixed, D, 0);
        for (int64_t n = 0; n < rows; n++) {
            const int64_t place = (first + done + n % count) * j->H + head * b->group + n / count;
            put(j->out + place * D, b->mixed + n * D, D);
        }
    }
}

static Bench start(const Job *j) {
    const int64_t mine = __atomic_fetch_add(j->taken + 1, 1, __ATOMIC_RELAXED);
    return furnished(j, j->scratch + mine * aha_bench(j->H, j->K, j->D, j->widest));
}

static void attend(const Job *j, int64_t unused_first, int64_t unused_last) {
    (void)unused_first, (void)unused_last; /* pieces differ in size: whoever is free takes one */
    const Bench b = start(j);
    int64_t piece;
    while ((piece = __atomic_fetch_add(j->taken, 1, __ATOMIC_RELAXED)) < j->prompts * j->K) {
        const int64_t prompt = piece / j->K, head = piece % j->K;
        const int64_t before = j->edges[prompt + 1] - j->edges[prompt];
        fetch(j, &b, head, prompt, 0);
        attend_run(j, &b, head, prompt, 0);
        for (int64_t i = j->bounds[prompt]; i < j->bounds[prompt + 1]; i++) {
            fetch(j, &b, head, j->prompts + j->order[i], before);
            attend_run(j, &b, head, j->prompts + j->order[i], before);
        }
    }
}

/* -- backward ---------------------------------------------------------------------------------- */

static void attend_run_back(const Job *j, const Bench *b, int64_t head, int64_t run,
                            int64_t before) {
    const int64_t D = j->D, first = j->edges[run], length = j->edges[run + 1] - first;
    for (int64_t done = 0; done < length; done += b->block) {
        const int64_t count = length - done < b->block ? length - done : b->block;
        const int64_t keys = before + done + count, rows = b->group * count;
        const int64_t wide = padded(keys, LANES);
        fetch_queries(j, b, head, first + done, count);
        for (int64_t n = 0; n < rows; n++) {
            const int64_t place = (first + done + n % count) * j->H + head * b->group + n / count;
            widen_head(j->grad + place * D, b->grad_mixed + n * D, D);
        }
        product(rows, wide, D, b->queries, D, 1, b->keys_T, b->stride, b->weights, b->stride, 0);
        product(rows, wide, D, b->grad_mixed, D, 1, b->values_T, b->stride, b->grads, b->stride, 0);
        for (int64_t n = 0; n < rows; n++) {
            float *weights = b->weights + n * b->stride, *grads = b->grads + n * b->stride;
            const int64_t i = n % count, seen = before + done + i + 1;
            weigh(weights, seen, wide,
                  j->lse[(first + done + i) * j->H + head * b->group + n / count]);
            for (int64_t k = seen; k < wide; k++) grads[k] = 0.0f;
            vec both = {0};
            for (int64_t k = 0; k < wide; k += LANES) both += load(weights + k) * load(grads + k);
            const float dot = sum(both);
            for (int64_t k = 0; k < wide; k += LANES)
                store(grads + k, load(weights + k) * (load(grads + k) - dot));
        }
        product(rows, D, keys, b->grads, b->stride, 1, b->keys, D, b->grad_queries, D, 0);
        product(keys, D, rows, b->weights, 1, b->stride, b->grad_mixed, D, b->grad_values, D, 1);
        product(keys, D, rows, b->grads, 1, b->stride, b->queries, D, b->grad_keys, D, 1);
        for (int64_t n = 0; n < rows; n++) {
            const int64_t token = first + done + n % count;
            const int64_t place = token * (j->H + 2 * j->K) + head * b->group + n / count;
            turn(j, b->grad_queries + n * D, token, -1.0f);
            put(j->out + place * D, b->grad_queries + n * D, D);
        }
    }
}

/* The sums of a run's keys and values, from place `at` of the bench, are complete. */
static void finish(const Job *j, const Bench *b, int64_t head, int64_t run, int64_t at) {
    const int64_t D = j->D;
    for (int64_t token = j->edges[run]; token < j->edges[run + 1]; token++, at++) {
        num *key = j->out + (token * (j->H + 2 * j->K) + j->H + head) * D;
        turn(j, b->grad_keys + at * D, token, -1.0f);
        put(key, b->grad_keys + at * D, D);
        put(key + j->K * D, b->grad_values + at * D, D);
    }
}

static void forget(const Job *j, const Bench *b, int64_t at, int64_t count) {
    memset(b->grad_keys + at * j->D, 0, count * j->D * sizeof(float));
    memset(b->grad_values + at * j->D, 0, count * j->D * sizeof(float));
}

static void attend_back(const Job *j, int64_t unused_first, int64_t unused_last) {
    (void)unused_first, (void)unused_last;
    const Bench b = start(j);
    int64_t piece;
    while ((piece = __atomic_fetch_add(j->taken, 1, __ATOMIC_RELAXED)) < j->prompts * j->K) {
        const int64_t prompt = piece / j->K, head = piece % j->K;
        const int64_t before = j->edges[prompt + 1] - j->edges[prompt];
        fetch(j, &b, head, prompt, 0);
        forget(j, &b, 0, before);
        attend_run_back(j, &b, head, prompt, 0);
        for (int64_t i = j->bounds[prompt]; i < j->bounds[prompt + 1]; i++) {
            const int64_t run = j->prompts + j->order[i];
            fetch(j, &b, head, run, before);
            forget(j, &b, before, j->edges[run + 1] - j->edges[run]);
            attend_run_back(j, &b, head, run, before);
            finish(j, &b, head, run, before);
        }
        finish(j, &b, head, prompt, 0);
    }
}

/* `scratch` has `aha_bench` floats for each thread. */
void aha_attend(const num *qkv, const float *cos, const float *sin, const int64_t *edges,
                const int64_t *order, const int64_t *bounds, num *out, float *lse, float *scratch,
                int64_t tokens, int64_t prompts, int64_t H, int64_t K, int64_t D, int64_t widest,
                int threads) {
    int64_t taken[2] = {0, 0};
    const Job job = {.qkv = qkv, .cos = cos, .sin = sin, .edges = edges, .order = order,
                     .bounds = bounds, .out = out, .lse = lse, .scratch = scratch, .taken = taken,
                     .prompts = prompts, .H = H, .K = K, .D = D, .widest = widest};
    spread(&job, attend, prompts * K, tokens * (H + 2 * K) * D, threads);
}

void aha_attend_back(const num *grad, const num *qkv, const float *cos, const float *sin,
                     const int64_t *edges, const int64_t *order, const int64_t *bounds, num *out,
                     float *lse, float *scratch, int64_t tokens, int64_t prompts, int64_t H,
                     int64_t K, int64_t D, int64_t widest, int threads) {
    int64_t taken[2] = {0, 0};
    const Job job = {.grad = grad, .qkv = qkv, .cos = cos, .sin = sin, .edges = edges,
                     .order = order, .bounds = bounds, .out = out, .lse = lse, .scratch = scratch,
                     .taken = taken, .prompts = prompts, .H = H, .K = K, .D = D, .widest = widest};
    spread(&job, attend_back, prompts * K, tokens * (H + 2 * K) * D, threads);
}
