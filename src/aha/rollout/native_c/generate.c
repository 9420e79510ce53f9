/* Batched generation on a CPU: the maths of aha.model.decode without a tensor library.
 *
 * One worker per thread. A worker holds up to SLOTS rows, computes the next token of all of them,
 * and replaces each row that has ended by the next one of a queue that all workers share; no row
 * waits for the longest. The order of every sum depends on the row alone, so a completion is bit
 * for bit the same whatever rows run with it, in either type.
 *
 * First all prompts are read, each once, into a cache of their own; then the rows are generated,
 * each from a copy of its prompt's cache.
 *
 * Compiled twice by aha.rollout.c_loop: with BF16=0 weights, keys and values are float32; with
 * BF16=1 they are bf16 and the products run on AVX-512's dot instruction. Sums are float32.
 */
#include <math.h>
#include <pthread.h>

#include "decode.h"

int32_t aha_tile(void) { return TILE; }

/* -- drawing ----------------------------------------------------------------------------------- */

/* Number `index` of the random stream `seed`, in (0, 1): aha.rollout.engine.uniforms has the
 * reasons, and a test compares both. Token number `index` of a row uses number `index` of its
 * stream. */
static double uniform(uint64_t seed, int index) {
    uint64_t z = seed + (uint64_t)(index + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return ((double)(z >> 11) + 0.5) / 9007199254740992.0;
}

/* Draw the slot's next token: the first one at which the cumulative sum of the probabilities
 * reaches a uniform random number. A thinking budget may put another one in its place, and take
 * tokens back. Returns whether the row has ended.
 *
 * Sums over the vocabulary are double: 150,000 float additions lose more than the rarest tokens
 * weigh. With p = exp(x - top), Z = sum(p): log-prob = x - top - log Z, entropy = log Z + sum(p
 * (top - x)) / Z.
 */
static int draw(Worker *worker, Slot *slot, const float *logits) {
    const Job *job = worker->shared->job;
    const int V = worker->shared->model->vocab_size, greedy = job->temperature <= 0;
    float *tempered = worker->tempered, *p = worker->probs;
    float top = -1e30f;
    int token = 0;
    for (int v = 0; v < V; v++) {
        tempered[v] = greedy ? logits[v] : logits[v] / job->temperature;
        if (tempered[v] > top) top = tempered[v], token = v;
    }
    for (int v = 0; v < V; v += LANES) store(p + v, exponential(load(tempered + v) - top));
    double total = 0, cumulative = 0, gap = 0;
    for (int v = 0; v < V; v++) total += p[v];
    for (int v = 0; v < V; v++) gap += p[v] * (top - tempered[v]);
    if (!greedy) {
        const double edge = uniform(job->seeds[slot->row], slot->draws) * total;
        for (token = 0; token < V - 1; token++)
            if ((cumulative += p[token]) >= edge) break;
    }
    slot->draws++;
    int forced = 0, back = 0;
    if (job->budget->steps)
        token = choose(job->budget, &slot->thought, V, token, slot->count, &forced, &back);
    slot->count -= back;
    slot->position -= back;
    const int64_t place = (int64_t)slot->row * job->max_new_tokens + slot->count++;
    if (job->budget->steps) job->forced[place] = forced;
    job->tokens[place] = slot->token = token;
    job->logprobs[place] = (float)((double)tempered[token] - top - log(total));
    job->entropies[place] = (float)(gap / total + log(total));
    int ended = slot->count == job->max_new_tokens;
    for (int i = 0; i < job->num_stop_tokens; i++) ended |= token == job->stop_tokens[i];
    if (ended) job->counts[slot->row] = slot->count;
    return ended;
}

/* -- workers ----------------------------------------------------------------------------------- */

static void *allocate(int64_t bytes) {
    void *memory = NULL;
    return posix_memalign(&memory, 64, padded(bytes, 64)) ? NULL : memset(memory, 0, bytes);
}

static CacheShape cache_shape(const Model *m, int positions) {
    CacheShape shape = {.head_size = padded(positions, LANES) * m->head_dim};
    shape.values_start = shape.head_size * m->num_layers * m->num_kv_heads;
    shape.total_size = 2 * shape.values_start;
    return shape;
}

static int prompt_length(const Job *job, int prompt) {
    return job->prompt_ends[prompt] - (prompt ? job->prompt_ends[prompt - 1] : 0);
}

/* Read prompts, each into a cache of its own, and keep the logits after its last token. Several are
 * read side by side, a token of each at a time: the weights are then read once for all of them. */
static void read_prompts(Worker *worker, int n) {
    Shared *shared = worker->shared;
    const Job *job = shared->job;
    const int stride = padded(shared->model->vocab_size, TILE);
    int next[SLOTS];
    for (;;) {
        for (; n < SLOTS; n++) {
            const int prompt = __atomic_fetch_add(&shared->next_prompt, 1, __ATOMIC_RELAXED);
            if (prompt >= job->num_prompts) break;
            worker->slots[n] = (Slot){
                .row = prompt,
                .room.cache = shared->prompt_caches + shared->prompt_starts[prompt],
                .shape = cache_shape(shared->model, prompt_length(job, prompt)),
            };
            next[n] = prompt ? job->prompt_ends[prompt - 1] : 0;
        }
        if (!n) return;
        for (int s = 0; s < n; s++) worker->slots[s].token = job->prompt_tokens[next[s]++];
        decode_step(worker, n);
        for (int s = n - 1; s >= 0; s--) {
            const int prompt = worker->slots[s].row;
            if (next[s] < job->prompt_ends[prompt]) continue;
            memcpy(shared->first_logits + (int64_t)prompt * stride, worker->product + s * stride,
                   stride * sizeof(float));
            n--;
            worker->slots[s] = worker->slots[n];
            next[s] = next[n];
        }
    }
}

/* Make a room hold `size` numbers; 0 where there is no memory. One that is large enough is used
 * again, unless more than half of it would be empty: so one long prompt does not stay for ever. */
static int make_room(Room *room, int64_t size) {
    if (room->size >= size && room->size <= 2 * size) return 1;
    free(room->cache);
    room->cache = allocate(size * sizeof(num));
    room->size = room->cache ? size : 0;
    return room->cache != NULL;
}

/* Give a slot the next row of the queue: a copy of its prompt's cache, and its first token. Returns
 * 0 when no row is left. A row whose first token ends it needs no slot: the next row is tried.
 *
 * Caches of prompts are shorter than those of rows, so keys and values are copied head by head:
 * part i is at i * head_size of either cache, and only the prompt's blocks are copied. */
static int start_row(Worker *worker, Slot *slot, Room *room) {
    Shared *shared = worker->shared;
    const Model *m = shared->model;
    const Job *job = shared->job;
    for (;;) {
        const int row = __atomic_fetch_add(&shared->next_row, 1, __ATOMIC_RELAXED);
        if (row >= job->num_rows) return 0;
        const int prompt = job->prompt_of[row], length = prompt_length(job, prompt);
        const Thought thought = new_thought(job->budget, job->at_line[prompt]);
        *slot = (Slot){.row = row, .position = length, .thought = thought};
        const int64_t stride = padded(m->vocab_size, TILE);
        if (draw(worker, slot, shared->first_logits + prompt * stride)) continue;
        slot->shape = cache_shape(m, length + job->max_new_tokens);
        if (!make_room(room, slot->shape.total_size)) {
            worker->failed = 1;
            return 0;
        }
        slot->room = *room;
        const CacheShape from = cache_shape(m, length);
        const num *source = shared->prompt_caches + shared->prompt_starts[prompt];
        for (int part = 0; part < 2 * m->num_layers * m->num_kv_heads; part++)
            memcpy(room->cache + part * slot->shape.head_size, source + part * from.head_size,
                   from.head_size * sizeof(num));
        return 1;
    }
}

/* Rows of the queue until it is empty. The n active rows are in slots 0 .. n-1. A row that ends
 * gives its slot to the last active row, so that none of them is empty; its room goes back to the
 * free ones.
 *
 * The free rooms are free_rooms[0 .. SLOTS-1-n], and the next to be used is the last of them.
 * Example with 4 slots: 3 rows are active, only free_rooms[0] is free. Slot 1 ends: n becomes 2,
 * its room is stored at free_rooms[4 - 1 - 2 = 1], and slot 2 moves to slot 1. Slots are visited
 * from the last to the first, so the row that moves has had its turn. */
static void generate_rows(Worker *worker) {
    const int stride = padded(worker->shared->model->vocab_size, TILE);
    Room free_rooms[SLOTS] = {{0}};
    int n = 0;
    for (;;) {
        while (n < SLOTS && start_row(worker, worker->slots + n, free_rooms + SLOTS - 1 - n)) n++;
        if (!n) break;
        decode_step(worker, n);
        for (int s = n - 1; s >= 0; s--) {
            if (!draw(worker, worker->slots + s, worker->product + s * stride)) continue;
            n--;
            free_rooms[SLOTS - 1 - n] = worker->slots[s].room;
            worker->slots[s] = worker->slots[n];
        }
    }
    for (int s = 0; s < SLOTS; s++) free(free_rooms[s].cache);
}

/* The scratch memory of one worker, cut out of one block at `x`; 0 without memory. */
static int allocate_scratch(Worker *worker) {
    const Model *m = worker->shared->model;
    const Job *job = worker->shared->job;
    const int HD = m->num_heads * m->head_dim;
    int widest_product = HD + 2 * m->num_kv_heads * m->head_dim;
    if (2 * m->intermediate_size > widest_product) widest_product = 2 * m->intermediate_size;
    if (m->vocab_size > widest_product) widest_product = m->vocab_size;
    if (m->hidden_size > widest_product) widest_product = m->hidden_size;
    int widest_input = m->intermediate_size > m->hidden_size ? m->intermediate_size : m->hidden_size;
    if (HD > widest_input) widest_input = HD;
    const int64_t vocab = padded(m->vocab_size, LANES);
    const int64_t positions = padded(job->longest_prompt + job->max_new_tokens, LANES);
    const int64_t product_floats = SLOTS * (int64_t)padded(widest_product, TILE);
    const int64_t floats =
        SLOTS * ((int64_t)m->hidden_size + widest_input) + product_floats + HD + positions;
    worker->x = allocate((floats + 2 * vocab) * sizeof(float));
    if (!worker->x) return 0;
    worker->product = worker->x + SLOTS * m->hidden_size;
    worker->input = (num *)(worker->product + product_floats);
    worker->attended = worker->product + product_floats + SLOTS * (int64_t)widest_input;
    worker->scores = worker->attended + HD;
    worker->tempered = worker->scores + positions;
    worker->probs = worker->tempered + vocab;
    for (int64_t v = m->vocab_size; v < vocab; v++) worker->tempered[v] = -1e30f;
    return 1;
}

static void *work(void *argument) {
    Worker *worker = argument;
    if (!allocate_scratch(worker))
        worker->failed = 1;
    else if (worker->reading)
        read_prompts(worker, 0);
    else
        generate_rows(worker);
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
        workers[t] = (Worker){.shared = shared, .reading = reading};
        if (t + 1 == threads || pthread_create(ids + t, NULL, work, workers + t)) break;
        started++;
    }
    work(workers + started);
    for (int t = 0; t < started; t++) pthread_join(ids[t], NULL);
    for (int t = 0; t <= started; t++) failed |= workers[t].failed;
    return failed;
}

/* Generate `num_rows` completions; 0, or 1 where there is not enough memory. */
int32_t aha_generate(const Model *m, const Job *job) {
    Shared shared = {.model = m, .job = job};
    shared.prompt_starts = allocate((job->num_prompts + 1) * sizeof(int64_t));
    if (!shared.prompt_starts) return 1;
    for (int prompt = 0; prompt < job->num_prompts; prompt++)
        shared.prompt_starts[prompt + 1] =
            shared.prompt_starts[prompt] + cache_shape(m, prompt_length(job, prompt)).total_size;
    shared.prompt_caches = allocate(shared.prompt_starts[job->num_prompts] * sizeof(num));
    shared.first_logits = allocate(job->num_prompts * padded(m->vocab_size, TILE) * sizeof(float));
    const int failed =
        !shared.prompt_caches || !shared.first_logits || run(&shared, 1) || run(&shared, 0);
    free(shared.prompt_starts);
    free(shared.prompt_caches);
    free(shared.first_logits);
    return failed;
}
