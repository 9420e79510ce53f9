/* The KV cache of a sequence, and attention over it.
 *
 * Values: [layer][kv head][position][D]. Keys are in blocks of LANES positions, and transposed
 * inside a block: [layer][kv head][block][D][LANES]. So one vector holds one dimension of LANES
 * keys, and the scores of LANES positions are D multiply-adds of vectors, with no sum across a
 * vector. Example with LANES = 16, D = 32: dimension 5 of the key at position 37 is in block 37 / 16
 * = 2, column 37 % 16 = 5, at 2 * 16 * 32 + 5 * 16 + 5 = 1109 of its head's keys.
 *
 * The rows of a group have their prompt in common. Its whole blocks stay in the prompt's cache,
 * which all of them read; a row's own cache begins with the prompt's last, partial block.
 */

/* Sizes of a cache, in numbers: all keys come first, then all values. */
typedef struct {
    int64_t head_size, values_start, total_size; /* head_size: keys of one head of one layer */
} CacheShape;

typedef struct {
    const num *shared; /* the prompt's cache; not read where no position is shared */
    num *own;
    CacheShape shared_shape, own_shape;
    int32_t num_shared; /* positions, a multiple of LANES: the first of the sequence */
} Cache;

/* A token, and its place in a sequence. */
typedef struct {
    int32_t token, position;
    const Cache *cache;
} Input;

static CacheShape cache_shape(const Model *m, int positions) {
    CacheShape shape = {.head_size = padded(positions, LANES) * m->head_dim};
    shape.values_start = shape.head_size * m->num_layers * m->num_kv_heads;
    shape.total_size = 2 * shape.values_start;
    return shape;
}

/* The cache of a row behind a prompt of `length` tokens; `own` has room for what it does not share.
 * Keys and values are copied head by head: part i is at i * head_size of either cache. */
static Cache continued(const Model *m, const Cache *prompt, int length, num *own, CacheShape shape) {
    const int shared = length / LANES * LANES;
    const int64_t from = (int64_t)shared * m->head_dim, size = LANES * m->head_dim;
    for (int i = 0; length > shared && i < 2 * m->num_layers * m->num_kv_heads; i++)
        memcpy(own + i * shape.head_size, prompt->own + i * prompt->own_shape.head_size + from,
               size * sizeof(num));
    return (Cache){prompt->own, own, prompt->own_shape, shape, shared};
}

/* Where the keys or the values of one head of a layer are. */
typedef struct {
    const num *shared, *own;
} Stretches;

static inline Stretches stretches(const Cache *cache, int64_t head, int values) {
    return (Stretches){
        cache->shared + values * cache->shared_shape.values_start +
            head * cache->shared_shape.head_size,
        cache->own + values * cache->own_shape.values_start + head * cache->own_shape.head_size,
    };
}

/* Add key and value [D] of a position to the cache. */
static void remember(const Cache *cache, int64_t head, int position, int D, const float *key,
                     const float *value) {
    const int place = position - cache->num_shared;
    num *keys = cache->own + head * cache->own_shape.head_size;
    num *column = keys + (int64_t)(place / LANES) * LANES * D + place % LANES;
    for (int d = 0; d < D; d++) column[d * LANES] = narrow_one(key[d]);
    num *values = keys + cache->own_shape.values_start + (int64_t)place * D;
    for (int d = 0; d < D; d += LANES) narrow(values + d, load(value + d));
}

/* Queries that are computed together, so that a key or value that was loaded serves all of them.
 * Their sums have to stay in registers. */
enum { ABREAST = LANES == 16 ? 8 : 4 };

typedef struct {
    const float *q; /* [D] */
    num *out;       /* [D] */
    int32_t count;  /* of positions that it attends to, from the first on */
} Query;

static inline __attribute__((always_inline)) void
score(const int n, const Query *queries, const num *keys, int blocks, int D, float *scores, int width) {
    for (int block = 0; block < blocks; block++, keys += LANES * D) {
        vec total[ABREAST];
        for (int i = 0; i < n; i++) total[i] = (vec){0};
        for (int d = 0; d < D; d++) {
            const vec key = widen(keys + LANES * d);
            for (int i = 0; i < n; i++) total[i] += queries[i].q[d] * key;
        }
        for (int i = 0; i < n; i++) store(scores + i * width + LANES * block, total[i]);
    }
}

/* Scores in place become e^(score - the greatest); returns their sum. The weights of a last, partial
 * block are added one by one: the order depends on `count` alone. */
static float soften(float *scores, int count) {
    const int whole = count / LANES * LANES, end = padded(count, LANES);
    vec most = all(-1e30f);
    for (int i = 0; i < whole; i += LANES) {
        const vec block = load(scores + i);
        most = pick(block > most, block, most);
    }
    float top = -1e30f;
    for (int i = 0; i < LANES; i++) top = most[i] > top ? most[i] : top;
    for (int i = whole; i < count; i++) top = scores[i] > top ? scores[i] : top;
    for (int i = count; i < end; i++) scores[i] = -1e30f;
    vec total = {0};
    for (int i = 0; i < end; i += LANES) {
        const vec weight = exponential(load(scores + i) - top);
        store(scores + i, weight);
        if (i < whole) total += weight;
    }
    float norm = sum(total);
    for (int i = whole; i < count; i++) norm += scores[i];
    return norm;
}

typedef struct {
    vec even[ABREAST], odd[ABREAST];
} Sums;

/* Add the positions from `first` up to `last`, both even; `values` are those of `first`. */
static inline __attribute__((always_inline)) void
weigh(const int n, Sums *sums, const num *values, int first, int last, int D, const float *scores,
      int width) {
    for (int i = first; i < last; i += 2, values += 2 * D) {
        const vec value = widen(values), next = widen(values + D);
        for (int q = 0; q < n; q++) {
            sums->even[q] += scores[q * width + i] * value;
            sums->odd[q] += scores[q * width + i + 1] * next;
        }
    }
}

/* n queries of one sequence; `scores` is [n, width]. Values are added in two running sums, of even
 * and of odd positions. The order of all sums of a query depends on its count alone: its bits are
 * the same whatever is computed with it, so a prompt that is read in blocks gives the keys and
 * values that it would give token by token. */
static inline __attribute__((always_inline)) void
attend_n(const int n, const Query *queries, Stretches keys, Stretches values, int shared, int D,
         float *scores, int width) {
    int most = 0, least = INT32_MAX;
    for (int i = 0; i < n; i++) {
        most = queries[i].count > most ? queries[i].count : most;
        least = queries[i].count < least ? queries[i].count : least;
    }
    score(n, queries, keys.shared, shared / LANES, D, scores, width);
    score(n, queries, keys.own, (padded(most, LANES) - shared) / LANES, D, scores + shared, width);
    float norms[ABREAST];
    for (int i = 0; i < n; i++) norms[i] = soften(scores + i * width, queries[i].count);
    least = least / 2 * 2;
    for (int d = 0; d < D; d += LANES) {
        Sums sums;
        for (int i = 0; i < n; i++) sums.even[i] = sums.odd[i] = (vec){0};
        weigh(n, &sums, values.shared + d, 0, shared, D, scores, width);
        weigh(n, &sums, values.own + d, shared, least, D, scores, width);
        for (int i = 0; i < n; i++) {
            const float *weights = scores + i * width;
            const num *own = values.own + d - (int64_t)shared * D;
            vec even = sums.even[i], odd = sums.odd[i];
            int p = least;
            for (; p + 1 < queries[i].count; p += 2) {
                even += weights[p] * widen(own + (int64_t)p * D);
                odd += weights[p + 1] * widen(own + (int64_t)(p + 1) * D);
            }
            if (p < queries[i].count) even += weights[p] * widen(own + (int64_t)p * D);
            narrow(queries[i].out + d, (even + odd) / norms[i]);
        }
    }
}

static void attend(const Query *queries, int n, Stretches keys, Stretches values, int shared, int D,
                   float *scores, int width) {
    for (; n > 0; n -= ABREAST, queries += ABREAST)
        switch (n < ABREAST ? n : ABREAST) {
#define CASE(N)                                                                                    \
    case N: attend_n(N, queries, keys, values, shared, D, scores, width); break;
            CASE(1) CASE(2) CASE(3) CASE(4)
#if defined(__AVX512F__)
            CASE(5) CASE(6) CASE(7) CASE(8)
#endif
#undef CASE
        }
}
