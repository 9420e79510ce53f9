/* Batched generation on a CPU: the maths of aha.model.decode, without a tensor library between.
 *
 * One worker a core. A worker holds up to SLOTS rows, takes them one token further together, and
 * replaces each that ends by the next of the queue; nothing waits for the longest row. Each row's
 * numbers are computed in an order of their own, so a completion is bit for bit the same whatever
 * runs beside it, in either type.
 *
 * Compiled twice by aha.rollout.c_loop: with BF16=0 weights, keys and values are float32; with
 * BF16=1 they are bf16 and the products run on AVX-512's dot instruction. Sums are float32.
 */
#include <math.h>
#include <pthread.h>

#include "decode.h"

int32_t aha_tile(void) { return TILE; }

/* -- drawing ----------------------------------------------------------------------------------- */

/* Number `index` of the stream `seed`, in (0, 1): aha.rollout.engine.uniforms. */
static double uniform(uint64_t seed, int index) {
    uint64_t z = seed + (uint64_t)(index + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return ((double)(z >> 11) + 0.5) / 9007199254740992.0;
}

/* Draw the slot's next token by inverting the distribution; returns whether the row has ended. */
static int draw(Worker *worker, Slot *slot, const float *logits) {
    const Job *job = worker->shared->job;
    const int V = worker->shared->model->vocab, greedy = job->temperature <= 0;
    float *cool = worker->cool, *p = worker->probs;
    float top = -1e30f;
    int token = 0;
    for (int v = 0; v < V; v++) {
        cool[v] = greedy ? logits[v] : logits[v] / job->temperature;
        if (cool[v] > top) top = cool[v], token = v;
    }
    for (int v = 0; v < V; v += LANES) store(p + v, exponential(load(cool + v) - top));
    double total = 0, reached = 0, surprise = 0;
    for (int v = 0; v < V; v++) total += p[v];
    for (int v = 0; v < V; v++) surprise += p[v] * (top - cool[v]);
    if (!greedy) {
        const double edge = uniform(job->seeds[slot->row], slot->count) * total;
        for (token = 0; token < V - 1; token++)
            if ((reached += p[token]) >= edge) break;
    }
    const int64_t place = (int64_t)slot->row * job->max_new + slot->count++;
    job->tokens[place] = slot->token = token;
    job->logprobs[place] = (float)((double)cool[token] - top - log(total));
    job->entropies[place] = (float)(surprise / total + log(total));
    int ended = slot->count == job->max_new;
    for (int i = 0; i < job->stops; i++) ended |= token == job->stop_tokens[i];
    if (ended) job->counts[slot->row] = slot->count;
    return ended;
}

/* -- workers ----------------------------------------------------------------------------------- */

static void *claim(int64_t bytes) {
    void *found = NULL;
    return posix_memalign(&found, 64, padded(bytes, 64)) ? NULL : memset(found, 0, bytes);
}

/* Read one prompt into a cache of its own, and keep the logits after its last token. */
static void read_prompts(Worker *worker, int n) {
    Shared *shared = worker->shared;
    const Job *job = shared->job;
    const int stride = padded(shared->model->vocab, TILE);
    int next[SLOTS];
    for (;;) {
        for (; n < SLOTS; n++) {
            const int prompt = __atomic_fetch_add(&shared->next_prompt, 1, __ATOMIC_RELAXED);
            if (prompt >= job->prompts) break;
            worker->slots[n] = (Slot){.row = prompt, .cache = shared->read + prompt * shared->prompt.size};
            next[n] = prompt ? job->prompt_ends[prompt - 1] : 0;
        }
        if (!n) return;
        for (int s = 0; s < n; s++) worker->slots[s].token = job->prompt_tokens[next[s]++];
        advance(worker, n);
        for (int s = n - 1; s >= 0; s--) {
            const int prompt = worker->slots[s].row;
            if (next[s] < job->prompt_ends[prompt]) continue;
            memcpy(shared->first_logits + (int64_t)prompt * stride, worker->wide + s * stride,
                   stride * sizeof(float));
            n--;
            worker->slots[s] = worker->slots[n];
            next[s] = next[n];
        }
    }
}

/* Give a slot the next row of the queue: its prompt's cache, copied, and its first token. */
static int admit(Worker *worker, Slot *slot, num *cache) {
    Shared *shared = worker->shared;
    const Model *m = shared->model;
    const Job *job = shared->job;
    for (;;) {
        const int row = __atomic_fetch_add(&shared->next_row, 1, __ATOMIC_RELAXED);
        if (row >= job->rows) return 0;
        const int prompt = job->prompt_of[row];
        const int length =
            job->prompt_ends[prompt] - (prompt ? job->prompt_ends[prompt - 1] : 0);
        *slot = (Slot){.row = row, .position = length, .cache = cache};
        const int64_t stride = padded(m->vocab, TILE);
        if (draw(worker, slot, shared->first_logits + prompt * stride)) continue;
        const int64_t bytes = (int64_t)padded(length, LANES) * m->head_dim * sizeof(num);
        for (int part = 0; part < 2 * m->layers * m->kv_heads; part++)
            memcpy(cache + part * shared->row.head,
                   shared->read + prompt * shared->prompt.size + part * shared->prompt.head, bytes);
        return 1;
    }
}

static void write_rows(Worker *worker, num *caches) {
    Shared *shared = worker->shared;
    const int stride = padded(shared->model->vocab, TILE);
    num *free_caches[SLOTS];
    int n = 0;
    for (int s = 0; s < SLOTS; s++) free_caches[s] = caches + s * shared->row.size;
    for (;;) {
        while (n < SLOTS && admit(worker, worker->slots + n, free_caches[SLOTS - 1 - n])) n++;
        if (!n) return;
        advance(worker, n);
        for (int s = n - 1; s >= 0; s--) {
            if (!draw(worker, worker->slots + s, worker->wide + s * stride)) continue;
            n--;
            free_caches[SLOTS - 1 - n] = worker->slots[s].cache;
            worker->slots[s] = worker->slots[n];
        }
    }
}

/* Scratch of one worker in one block; the caches of its rows behind it. NULL without memory. */
static num *equip(Worker *worker) {
    const Model *m = worker->shared->model;
    const Job *job = worker->shared->job;
    const int mix = m->heads * m->head_dim;
    int widest = mix + 2 * m->kv_heads * m->head_dim;
    if (2 * m->mlp > widest) widest = 2 * m->mlp;
    if (m->vocab > widest) widest = m->vocab;
    if (m->hidden > widest) widest = m->hidden;
    int in = m->mlp > m->hidden ? m->mlp : m->hidden;
    if (mix > in) in = mix;
    const int64_t vocab = padded(m->vocab, LANES), limit = padded(job->longest_prompt + job->max_new, LANES);
    const int64_t floats = SLOTS * ((int64_t)m->hidden + padded(widest, TILE) + in) + mix + limit;
    worker->x = claim((floats + 2 * vocab) * sizeof(float));
    num *caches = claim(SLOTS * (worker->reading ? 1 : worker->space.size) * sizeof(num));
    if (!worker->x || !caches) {
        free(caches);
        return NULL;
    }
    worker->wide = worker->x + SLOTS * m->hidden;
    worker->input = (num *)(worker->wide + SLOTS * (int64_t)padded(widest, TILE));
    worker->mixed = worker->wide + SLOTS * ((int64_t)padded(widest, TILE) + in);
    worker->scores = worker->mixed + mix;
    worker->cool = worker->scores + limit;
    worker->probs = worker->cool + vocab;
    for (int64_t v = m->vocab; v < vocab; v++) worker->cool[v] = -1e30f;
    return caches;
}

static void *work(void *argument) {
    Worker *worker = argument;
    num *caches = equip(worker);
    if (!caches) worker->failed = 1;
    if (caches && worker->reading) read_prompts(worker, 0);
    if (caches && !worker->reading) write_rows(worker, caches);
    free(caches);
    free(worker->x);
    return NULL;
}

/* Run all workers to the end of their queue; 0, or 1 where one found no memory. */
static int run(Shared *shared, int reading) {
    const int threads = shared->job->threads;
    pthread_t ids[threads];
    Worker workers[threads];
    int failed = 0, started = 0;
    for (int t = 0; t < threads; t++) {
        workers[t] = (Worker){
            .shared = shared, .reading = reading, .space = reading ? shared->prompt : shared->row};
        if (t + 1 == threads || pthread_create(ids + t, NULL, work, workers + t)) break;
        started++;
    }
    work(workers + started);
    for (int t = 0; t < started; t++) pthread_join(ids[t], NULL);
    for (int t = 0; t <= started; t++) failed |= workers[t].failed;
    return failed;
}

static Space space_of(const Model *m, int positions) {
    Space space = {.head = padded(positions, LANES) * m->head_dim};
    space.values = space.head * m->layers * m->kv_heads;
    space.size = 2 * space.values;
    return space;
}

/* Write `rows` completions; 0, or 1 where there is not enough memory. */
int32_t aha_generate(const Model *m, const Job *job) {
    Shared shared = {.model = m, .job = job};
    shared.prompt = space_of(m, job->longest_prompt);
    shared.row = space_of(m, job->longest_prompt + job->max_new);
    shared.read = claim(job->prompts * shared.prompt.size * sizeof(num));
    shared.first_logits = claim(job->prompts * padded(m->vocab, TILE) * sizeof(float));
    const int failed =
        !shared.read || !shared.first_logits || run(&shared, 1) || run(&shared, 0);
    free(shared.read);
    free(shared.first_logits);
    return failed;
}
