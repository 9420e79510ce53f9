/* One token further for all rows of a worker: aha.model.decode.step, row by row.
 *
 * Layouts. Keys of one row: [layer][kv head][block][D][LANES], so that scores of LANES positions
 * come out of one vector. Values: [layer][kv head][position][D].
 */
#include "numbers.h"

typedef struct {
    int32_t hidden, heads, kv_heads, head_dim, mlp, layers, vocab;
    float eps;
    const float *embedding, *cos, *sin; /* [vocab, hidden], [positions, D / 2] */
    const num *const *matrices;         /* a layer: qkv, out, gate_up, down; last: head */
    const float *const *biases;         /* a layer: qkv */
} Model;

typedef struct {
    int32_t prompts, rows, max_new, longest_prompt, stops, threads;
    float temperature; /* 0 is greedy */
    const int32_t *prompt_tokens, *prompt_ends, *stop_tokens;
    const int32_t *prompt_of; /* [rows] */
    const uint64_t *seeds;    /* [rows] */
    int32_t *tokens, *counts; /* [rows, max_new], [rows] */
    float *logprobs;          /* [rows, max_new] */
    float *entropies;         /* [rows, max_new] */
} Job;

/* How a cache is laid out: its keys, then its values, in numbers. */
typedef struct {
    int64_t head, values, size; /* of one head of one layer; where the values begin; in all */
} Space;

typedef struct {
    int32_t row, token, position, count;
    num *cache;
} Slot;

typedef struct {
    const Model *model;
    const Job *job;
    Space prompt, row;
    num *read;           /* [prompts, prompt.size] the caches after each prompt */
    float *first_logits; /* [prompts, vocab padded] */
    int32_t next_prompt, next_row;
} Shared;

typedef struct {
    Shared *shared;
    Slot slots[SLOTS];
    float *x, *wide;                   /* [SLOTS, ...]: the stream; what a product gives */
    num *input;                        /* [SLOTS, ...]: what a product takes */
    float *mixed, *scores, *cool, *probs;
    Space space; /* of the caches that its slots have now */
    int reading, failed;
} Worker;

static void normalise(const float *x, num *out, int width, float eps) {
    vec squares = {0};
    for (int i = 0; i < width; i += LANES) squares += load(x + i) * load(x + i);
    const float scale = 1.0f / __builtin_sqrtf(sum(squares) / width + eps);
    for (int i = 0; i < width; i += LANES) narrow(out + i, load(x + i) * scale);
}

static void rotate(float *x, const float *cos, const float *sin, int half) {
    for (int i = 0; i < half; i++) {
        const float first = x[i], second = x[half + i];
        x[i] = first * cos[i] - second * sin[i];
        x[half + i] = second * cos[i] + first * sin[i];
    }
}

/* One query head of one row over `count` positions; `out` [D]. */
static void attend(
    const float *q, const num *keys, const num *values, int count, int D, float *scores, float *out) {
    float top = -1e30f;
    for (int block = 0; block < count; block += LANES, keys += LANES * D) {
        vec found = {0};
        for (int d = 0; d < D; d++) found += q[d] * widen(keys + LANES * d);
        store(scores + block, found);
        const int here = count - block < LANES ? count - block : LANES;
        for (int i = 0; i < here; i++) top = scores[block + i] > top ? scores[block + i] : top;
    }
    for (int i = count; i < padded(count, LANES); i++) scores[i] = -1e30f;
    vec total = {0};
    for (int i = 0; i < count; i += LANES) {
        const vec weight = exponential(load(scores + i) - top);
        store(scores + i, weight);
        if (i + LANES <= count) total += weight;
    }
    float norm = sum(total);
    for (int i = count / LANES * LANES; i < count; i++) norm += scores[i];
    for (int d = 0; d < D; d += LANES) {
        vec even = {0}, odd = {0};
        int i = 0;
        for (; i + 1 < count; i += 2) {
            even += scores[i] * widen(values + i * D + d);
            odd += scores[i + 1] * widen(values + (i + 1) * D + d);
        }
        if (i < count) even += scores[i] * widen(values + i * D + d);
        store(out + d, (even + odd) / norm);
    }
}

/* Rotate this row's query and key, remember key and value, and mix the values: `mixed` [H * D]. */
static void attention(Worker *worker, const Slot *slot, int layer, float *qkv, float *mixed) {
    const Model *m = worker->shared->model;
    const Space *space = &worker->space;
    const int D = m->head_dim, half = D / 2, at = slot->position;
    const float *cos = m->cos + (int64_t)at * half, *sin = m->sin + (int64_t)at * half;
    for (int head = 0; head < m->heads + m->kv_heads; head++) rotate(qkv + head * D, cos, sin, half);
    for (int kv = 0; kv < m->kv_heads; kv++) {
        const int64_t place = (layer * m->kv_heads + kv) * space->head;
        num *keys = slot->cache + place, *values = slot->cache + space->values + place;
        const float *key = qkv + (m->heads + kv) * D, *value = key + m->kv_heads * D;
        num *column = keys + (int64_t)(at / LANES) * LANES * D + at % LANES;
        for (int d = 0; d < D; d++) column[d * LANES] = narrow_one(key[d]);
        for (int d = 0; d < D; d += LANES) narrow(values + (int64_t)at * D + d, load(value + d));
        const int group = m->heads / m->kv_heads;
        for (int head = kv * group; head < (kv + 1) * group; head++)
            attend(qkv + head * D, keys, values, at + 1, D, worker->scores, mixed + head * D);
    }
}

static void swiglu(const float *gate_up, num *out, int width) {
    for (int i = 0; i < width; i += LANES) {
        const vec gate = load(gate_up + i);
        narrow(out + i, gate / (1.0f + exponential(-gate)) * load(gate_up + width + i));
    }
}

static void add(float *x, const float *y, int width) {
    for (int i = 0; i < width; i += LANES) store(x + i, load(x + i) + load(y + i));
}

/* Feed each slot's token; afterwards `wide` holds the logits, padded rows of them. */
static void advance(Worker *worker, int n) {
    const Model *m = worker->shared->model;
    const int C = m->hidden, mix = m->heads * m->head_dim;
    const int qkv = mix + 2 * m->kv_heads * m->head_dim;
    const int qkv_stride = padded(qkv, TILE), c_stride = padded(C, TILE);
    const int gu_stride = padded(2 * m->mlp, TILE);
    float *x = worker->x, *wide = worker->wide, *mixed = worker->mixed;
    num *input = worker->input;
    for (int s = 0; s < n; s++)
        memcpy(x + s * C, m->embedding + (int64_t)worker->slots[s].token * C, C * sizeof(float));
    for (int layer = 0; layer < m->layers; layer++) {
        const num *const *w = m->matrices + 4 * layer;
        for (int s = 0; s < n; s++) normalise(x + s * C, input + s * C, C, m->eps);
        multiply(n, input, C, w[0], qkv, wide);
        for (int s = 0; s < n; s++) {
            float *row = wide + s * qkv_stride;
            add(row, m->biases[layer], qkv);
            attention(worker, worker->slots + s, layer, row, mixed);
            for (int i = 0; i < mix; i += LANES) narrow(input + s * mix + i, load(mixed + i));
        }
        multiply(n, input, mix, w[1], C, wide);
        for (int s = 0; s < n; s++) {
            add(x + s * C, wide + s * c_stride, C);
            normalise(x + s * C, input + s * C, C, m->eps);
        }
        multiply(n, input, C, w[2], 2 * m->mlp, wide);
        for (int s = 0; s < n; s++) swiglu(wide + s * gu_stride, input + s * m->mlp, m->mlp);
        multiply(n, input, m->mlp, w[3], C, wide);
        for (int s = 0; s < n; s++) add(x + s * C, wide + s * c_stride, C);
    }
    for (int s = 0; s < n; s++) normalise(x + s * C, input + s * C, C, m->eps);
    multiply(n, input, C, m->matrices[4 * m->layers], m->vocab, wide);
    for (int s = 0; s < n; s++) worker->slots[s].position++;
}
