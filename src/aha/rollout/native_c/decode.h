/* The next token for all rows of a worker: aha.model.decode.decode_step, row by row.
 *
 * The KV cache of one row. Values: [layer][kv head][position][D]. Keys are in blocks of LANES
 * positions, and transposed inside a block: [layer][kv head][block][D][LANES]. So one vector holds
 * one dimension of LANES keys, and the scores of LANES positions are D multiply-adds of vectors,
 * with no sum across a vector. Example with LANES = 16, D = 32: dimension 5 of the key at position
 * 37 is in block 37 / 16 = 2, column 37 % 16 = 5, at 2 * 16 * 32 + 5 * 16 + 5 = 1109 of its head's
 * keys.
 */
#include "numbers.h"

#include "forcing.h"

/* aha.rollout.c_loop.Model fills this by the same names; a test compares the two. */
typedef struct {
    int32_t hidden_size, num_heads, num_kv_heads, head_dim, intermediate_size, num_layers, vocab_size;
    float rms_norm_eps;
    const float *embedding, *cos, *sin; /* [vocab_size, hidden_size], [positions, D / 2] */
    const num *const *matrices;         /* of each layer: qkv, o, gate and up, down; last: lm_head */
    const float *const *biases;         /* of each layer: qkv */
} Model;

/* aha.rollout.c_loop.Job fills this by the same names; a test compares the two. */
typedef struct {
    int32_t num_prompts, num_rows, max_new_tokens, longest_prompt, num_stop_tokens, threads;
    float temperature;            /* 0 is greedy */
    const int32_t *prompt_tokens; /* of all prompts, one after the other */
    const int32_t *prompt_ends;   /* [num_prompts], in prompt_tokens */
    const int32_t *stop_tokens;
    const int32_t *prompt_of; /* [num_rows] */
    const uint64_t *seeds;    /* [num_rows] */
    const Budget *budget;
    const uint8_t *at_line; /* [num_prompts]: whether a prompt ends with a line break */
    int32_t *tokens, *counts; /* [num_rows, max_new_tokens], [num_rows] */
    float *logprobs;          /* [num_rows, max_new_tokens] */
    float *entropies;         /* [num_rows, max_new_tokens] */
    uint8_t *forced;          /* [num_rows, max_new_tokens], with a budget */
} Job;

/* Sizes of a KV cache, in numbers: all keys come first, then all values. */
typedef struct {
    int64_t head_size, values_start, total_size; /* head_size: keys of one head of one layer */
} CacheShape;

/* Memory for a KV cache, of `size` numbers. */
typedef struct {
    num *cache;
    int64_t size;
} Room;

typedef struct {
    int32_t row;      /* while prompts are read: the prompt */
    int32_t token;    /* the next input */
    int32_t position; /* of that token */
    int32_t count;    /* tokens recorded */
    int32_t draws;    /* tokens drawn: more than are recorded, where some were taken back */
    Thought thought;
    Room room;
    CacheShape shape; /* of its cache: every row has room for its own prompt and no more */
} Slot;

typedef struct {
    const Model *model;
    const Job *job;
    num *prompt_caches;            /* of all prompts, one after the other */
    int64_t *prompt_starts;        /* [num_prompts + 1], in prompt_caches */
    float *first_logits;           /* [num_prompts, vocabulary padded]: after each prompt */
    int32_t next_prompt, next_row; /* counters that the workers share */
} Shared;

typedef struct {
    Shared *shared;
    Slot slots[SLOTS];
    float *x;         /* [SLOTS, hidden_size]: the residual stream */
    float *product;   /* [SLOTS, ...]: output of a matrix product */
    num *input;       /* [SLOTS, ...]: input of a matrix product, in the weights' type */
    float *attended;  /* [H * D]: output of attention for one row */
    float *scores;    /* [positions] of one head */
    float *tempered;  /* [vocabulary padded]: logits / temperature */
    float *probs;     /* [vocabulary padded], not yet divided by their sum */
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

/* One query head of one row over `count` positions; `out` [D].
 *
 * The weights of a last, partial block are added one by one, and values in two running sums, of
 * even and of odd positions. The order depends on `count` alone: a row computes the same bits
 * whatever the other rows of the worker are. */
static void attend(
    const float *q, const num *keys, const num *values, int count, int D, float *scores, float *out) {
    float top = -1e30f;
    for (int block = 0; block < count; block += LANES, keys += LANES * D) {
        vec block_scores = {0};
        for (int d = 0; d < D; d++) block_scores += q[d] * widen(keys + LANES * d);
        store(scores + block, block_scores);
        const int valid = count - block < LANES ? count - block : LANES;
        for (int i = 0; i < valid; i++) top = scores[block + i] > top ? scores[block + i] : top;
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

/* Rotate this row's queries and keys, append key and value to its cache, attend: `attended` [H *
 * D]. */
static void attention(Worker *worker, const Slot *slot, int layer, float *qkv, float *attended) {
    const Model *m = worker->shared->model;
    const CacheShape *shape = &slot->shape;
    const int D = m->head_dim, half = D / 2, position = slot->position;
    const float *cos = m->cos + (int64_t)position * half, *sin = m->sin + (int64_t)position * half;
    for (int head = 0; head < m->num_heads + m->num_kv_heads; head++)
        rotate(qkv + head * D, cos, sin, half);
    for (int kv = 0; kv < m->num_kv_heads; kv++) {
        const int64_t place = (layer * m->num_kv_heads + kv) * shape->head_size;
        num *keys = slot->room.cache + place, *values = slot->room.cache + shape->values_start + place;
        const float *key = qkv + (m->num_heads + kv) * D, *value = key + m->num_kv_heads * D;
        num *column = keys + (int64_t)(position / LANES) * LANES * D + position % LANES;
        for (int d = 0; d < D; d++) column[d * LANES] = narrow_one(key[d]);
        num *place_of_value = values + (int64_t)position * D;
        for (int d = 0; d < D; d += LANES) narrow(place_of_value + d, load(value + d));
        const int group = m->num_heads / m->num_kv_heads;
        for (int head = kv * group; head < (kv + 1) * group; head++)
            attend(qkv + head * D, keys, values, position + 1, D, worker->scores,
                   attended + head * D);
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

/* The token of each of the first n slots through the model; afterwards `product` holds their
 * logits, in rows that are padded to a multiple of TILE. A layer's weights are read once for all n
 * rows, which is why rows are taken together. */
static void decode_step(Worker *worker, int n) {
    const Model *m = worker->shared->model;
    const int C = m->hidden_size, HD = m->num_heads * m->head_dim, I = m->intermediate_size;
    const int qkv = HD + 2 * m->num_kv_heads * m->head_dim;
    const int qkv_stride = padded(qkv, TILE), c_stride = padded(C, TILE);
    const int gate_up_stride = padded(2 * I, TILE);
    float *x = worker->x, *product = worker->product, *attended = worker->attended;
    num *input = worker->input;
    for (int s = 0; s < n; s++)
        memcpy(x + s * C, m->embedding + (int64_t)worker->slots[s].token * C, C * sizeof(float));
    for (int layer = 0; layer < m->num_layers; layer++) {
        const num *const *weights = m->matrices + 4 * layer;
        for (int s = 0; s < n; s++) normalise(x + s * C, input + s * C, C, m->rms_norm_eps);
        multiply(n, input, C, weights[0], qkv, product);
        for (int s = 0; s < n; s++) {
            float *row = product + s * qkv_stride;
            add(row, m->biases[layer], qkv);
            attention(worker, worker->slots + s, layer, row, attended);
            for (int i = 0; i < HD; i += LANES) narrow(input + s * HD + i, load(attended + i));
        }
        multiply(n, input, HD, weights[1], C, product);
        for (int s = 0; s < n; s++) {
            add(x + s * C, product + s * c_stride, C);
            normalise(x + s * C, input + s * C, C, m->rms_norm_eps);
        }
        multiply(n, input, C, weights[2], 2 * I, product);
        for (int s = 0; s < n; s++) swiglu(product + s * gate_up_stride, input + s * I, I);
        multiply(n, input, I, weights[3], C, product);
        for (int s = 0; s < n; s++) add(x + s * C, product + s * c_stride, C);
    }
    for (int s = 0; s < n; s++) normalise(x + s * C, input + s * C, C, m->rms_norm_eps);
    multiply(n, input, C, m->matrices[4 * m->num_layers], m->vocab_size, product);
    for (int s = 0; s < n; s++) worker->slots[s].position++;
}
