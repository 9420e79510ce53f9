/* One pass of a team over some inputs: the next token of its rows, or a piece of a prompt.
 *
 * The maths of aha.model.decode.decode_step, row by row. Rows and columns are divided among the
 * members, sums never are: an output is the same bits whoever computes it, and with whatever else.
 */
#include "job.h"

#include "attention.h"
#include "team.h"

enum {
    SLOTS = 24,  /* rows that are generated together for each member of a team */
    PIECE = 96,  /* tokens of prompts that are read together */
};

typedef struct {
    Input next;     /* the token to be read */
    Cache cache;
    num *room;      /* memory for its own part of the cache: that of the slot, whatever the row */
    int32_t row;
    int32_t count;  /* tokens recorded */
    int32_t draws;  /* tokens drawn: more than are recorded, where some were taken back */
    int32_t ended;
    Thought thought;
} Slot;

typedef struct {
    const Model *model;
    const Job *job;
    Cache *prompts;                /* [num_prompts] */
    float *first_logits;           /* [num_prompts, vocabulary padded]: after each prompt */
    int32_t next_prompt, next_row; /* counters that the teams share */
    int32_t size;                  /* threads of all teams */
    pthread_mutex_t gate;
    Meeting prompts_read;
} Shared;

/* Where a team is in the prompts, and which of them end in the piece that it reads. */
typedef struct {
    int32_t prompt, next, end; /* its next token and its end, in prompt_tokens */
    int32_t num_ended;
    int32_t ended[PIECE], places[PIECE]; /* prompts, and the inputs that are their last tokens */
} Reading;

typedef struct {
    Shared *shared;
    Meeting meeting;
    int32_t size;           /* members */
    int32_t num_slots, n;   /* slots, and how many of them have a row; or the inputs of a piece */
    int32_t failed;         /* there was no memory */
    Reading reading;
    Slot *slots;            /* [num_slots] */
    Input *inputs;          /* [rows] */
    float *x;               /* [rows, hidden_size]: the residual stream */
    float *product;         /* [rows, ...]: output of a matrix product */
    num *input;             /* [rows, ...]: input of a matrix product, in the weights' type */
} Team;

typedef struct {
    Team *team;
    int32_t index;
    float *scores;   /* [ABREAST, positions] of one head */
    float *tempered; /* [vocabulary padded]: logits / temperature */
    float *probs;    /* [vocabulary padded], not yet divided by their sum */
} Member;

static inline Part part_of(const Member *me, int64_t count) {
    return part(count, me->index, me->team->size);
}

static void meet_all(const Member *me) { meet(&me->team->meeting, me->team->size); }

static void normalise(const float *x, num *out, int width, float eps) {
    vec squares = {0};
    for (int i = 0; i < width; i += LANES) squares += load(x + i) * load(x + i);
    const float scale = 1.0f / __builtin_sqrtf(sum(squares) / width + eps);
    for (int i = 0; i < width; i += LANES) narrow(out + i, load(x + i) * scale);
}

/* One query or key, in place: divided by its root mean square, and times `weights`. */
static void normalise_head(float *x, const float *weights, int D, float eps) {
    vec squares = {0};
    for (int d = 0; d < D; d += LANES) squares += load(x + d) * load(x + d);
    const float scale = 1.0f / __builtin_sqrtf(sum(squares) / D + eps);
    for (int d = 0; d < D; d += LANES) store(x + d, load(x + d) * scale * load(weights + d));
}

static void rotate(float *x, const float *cos, const float *sin, int half) {
    for (int i = 0; i < half; i++) {
        const float first = x[i], second = x[half + i];
        x[i] = first * cos[i] - second * sin[i];
        x[half + i] = second * cos[i] + first * sin[i];
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

static int qkv_width(const Model *m) { return (m->num_heads + 2 * m->num_kv_heads) * m->head_dim; }

/* The member's columns of `product` [n, N padded] = input [n, K] times a matrix. */
static Part multiply_part(const Member *me, int n, int K, const num *matrix, int N) {
    const Team *team = me->team;
    const Part tiles = part_of(me, padded(N, TILE) / TILE);
    multiply(n, team->input, K, matrix, N, tiles.first, tiles.last, team->product);
    const int last = tiles.last * TILE;
    return (Part){tiles.first * TILE, last < N ? last : N};
}

/* A product whose columns are added to the residual stream. */
static void multiply_and_add(const Member *me, int n, int K, const num *matrix) {
    const Team *team = me->team;
    const int C = team->shared->model->hidden_size, stride = padded(C, TILE);
    const Part columns = multiply_part(me, n, K, matrix, C);
    for (int s = 0; s < n; s++)
        add(team->x + (int64_t)s * C + columns.first, team->product + s * stride + columns.first,
            columns.last - columns.first);
}

static void normalise_part(const Member *me, int n) {
    const Team *team = me->team;
    const Model *m = team->shared->model;
    const int C = m->hidden_size;
    const Part rows = part_of(me, n);
    for (int s = rows.first; s < rows.last; s++)
        normalise(team->x + s * C, team->input + s * C, C, m->rms_norm_eps);
}

/* Bias, norms and rotation of the member's rows of qkv; their keys and values go to the caches. */
static void remember_part(const Member *me, int layer, int n) {
    const Team *team = me->team;
    const Model *m = team->shared->model;
    const int D = m->head_dim, half = D / 2, width = qkv_width(m), stride = padded(width, TILE);
    const int turned = m->num_heads + m->num_kv_heads;
    const Part rows = part_of(me, n);
    for (int s = rows.first; s < rows.last; s++) {
        const Input *input = team->inputs + s;
        float *qkv = team->product + (int64_t)s * stride;
        add(qkv, m->biases[layer], width);
        if (m->head_norms)
            for (int head = 0; head < turned; head++)
                normalise_head(qkv + head * D, m->head_norms[layer] + head * D, D, m->rms_norm_eps);
        const int64_t angles = (int64_t)input->position * half;
        for (int head = 0; head < turned; head++)
            rotate(qkv + head * D, m->cos + angles, m->sin + angles, half);
        for (int kv = 0; kv < m->num_kv_heads; kv++) {
            const float *key = qkv + (m->num_heads + kv) * D;
            remember(input->cache, layer * m->num_kv_heads + kv, input->position, D, key,
                     key + m->num_kv_heads * D);
        }
    }
}

/* Attention of the heads that share `kv`, for `count` inputs of one sequence. */
static void attend_heads(const Member *me, int layer, int kv, int first, int count) {
    const Team *team = me->team;
    const Model *m = team->shared->model;
    const Job *job = team->shared->job;
    const int D = m->head_dim, HD = m->num_heads * D, group = m->num_heads / m->num_kv_heads;
    const int stride = padded(qkv_width(m), TILE), head = layer * m->num_kv_heads + kv;
    const Cache *cache = team->inputs[first].cache;
    const Stretches keys = stretches(cache, head, 0), values = stretches(cache, head, 1);
    const int width = padded(job->longest_prompt + job->max_new_tokens, LANES);
    Query queries[ABREAST];
    int n = 0;
    for (int s = first; s < first + count; s++)
        for (int h = kv * group; h < (kv + 1) * group; h++) {
            queries[n++] = (Query){
                .q = team->product + (int64_t)s * stride + h * D,
                .out = team->input + (int64_t)s * HD + h * D,
                .count = team->inputs[s].position + 1,
            };
            if (n < ABREAST && (s + 1 < first + count || h + 1 < (kv + 1) * group)) continue;
            attend(queries, n, keys, values, cache->num_shared, D, me->scores, width);
            n = 0;
        }
}

/* The member's part of attention. Rows of one prompt follow each other for each head: what they
 * share then comes from a near cache. */
static void attend_part(const Member *me, int layer, int n) {
    const Team *team = me->team;
    const Model *m = team->shared->model;
    const int abreast = ABREAST * m->num_kv_heads / m->num_heads;
    int starts[n + 1], blocks = 0;
    for (int s = 0; s < n; s++)
        if (!s || team->inputs[s].cache != team->inputs[s - 1].cache ||
            s - starts[blocks - 1] >= abreast)
            starts[blocks++] = s;
    starts[blocks] = n;
    const Part units = part_of(me, blocks * m->num_kv_heads);
    for (int unit = units.first; unit < units.last; unit++) {
        const int block = unit % blocks;
        attend_heads(me, layer, unit / blocks, starts[block], starts[block + 1] - starts[block]);
    }
}

/* n inputs through all layers; afterwards `input` [n, hidden_size] is what lm_head multiplies. */
static void read_inputs(const Member *me, int n) {
    const Team *team = me->team;
    const Model *m = team->shared->model;
    const int C = m->hidden_size, HD = m->num_heads * m->head_dim, I = m->intermediate_size;
    const int gate_up_stride = padded(2 * I, TILE);
    const Part rows = part_of(me, n);
    for (int s = rows.first; s < rows.last; s++) {
        const num *embedding = m->embedding + (int64_t)team->inputs[s].token * C;
        for (int i = 0; i < C; i += LANES) store(team->x + s * C + i, widen(embedding + i));
    }
    normalise_part(me, n);
    for (int layer = 0; layer < m->num_layers; layer++) {
        const num *const *weights = m->matrices + 4 * layer;
        meet_all(me);
        multiply_part(me, n, C, weights[0], qkv_width(m));
        meet_all(me);
        remember_part(me, layer, n);
        meet_all(me);
        attend_part(me, layer, n);
        meet_all(me);
        multiply_and_add(me, n, HD, weights[1]);
        meet_all(me);
        normalise_part(me, n);
        meet_all(me);
        multiply_part(me, n, C, weights[2], 2 * I);
        meet_all(me);
        for (int s = rows.first; s < rows.last; s++)
            swiglu(team->product + (int64_t)s * gate_up_stride, team->input + (int64_t)s * I, I);
        meet_all(me);
        multiply_and_add(me, n, I, weights[3]);
        meet_all(me);
        normalise_part(me, n);
    }
    meet_all(me);
}

/* Their logits, into `product` [n, vocabulary padded to TILE]. */
static void compute_logits(const Member *me, int n) {
    const Model *m = me->team->shared->model;
    multiply_part(me, n, m->hidden_size, m->matrices[4 * m->num_layers], m->vocab_size);
    meet_all(me);
}
