/* Batched generation on a CPU: the maths of aha.model.decode without a tensor library.
 *
 * A team of threads holds up to SLOTS rows for each of its members, computes the next token of all
 * of them, and replaces each row that has ended by the next one of a queue that all teams share; no
 * row waits for the longest. The order of every sum depends on the row alone, so a completion is bit
 * for bit the same whatever rows run with it and however many threads there are, in either type.
 *
 * First all prompts are read, each once, PIECE tokens at a time, into a cache of their own; then the
 * rows are generated, each with a cache that continues its prompt's.
 *
 * Compiled twice by aha.rollout.c_loop: with BF16=0 weights, keys and values are float32; with
 * BF16=1 they are bf16 and the products run on AVX-512's dot instruction. Sums are float32.
 */
#include <math.h>
#include <pthread.h>

#include "decode.h"
#include "draw.h"

enum { DONE, NO_MEMORY, STOPPED }; /* what aha_generate returns; aha.rollout.c_loop knows them */

int32_t aha_tile(void) { return TILE; }

static void *allocate(int64_t bytes) {
    void *memory = NULL;
    return posix_memalign(&memory, 64, padded(bytes, 64)) ? NULL : memset(memory, 0, bytes);
}

static int stopped(const Job *job) { return __atomic_load_n(job->stopped, __ATOMIC_RELAXED); }

static int prompt_start(const Job *job, int prompt) {
    return prompt ? job->prompt_ends[prompt - 1] : 0;
}

static int prompt_length(const Job *job, int prompt) {
    return job->prompt_ends[prompt] - prompt_start(job, prompt);
}

/* -- prompts ----------------------------------------------------------------------------------- */

/* The next inputs: tokens of as many prompts as make a piece. */
static void fill_piece(Team *team) {
    Shared *shared = team->shared;
    const Job *job = shared->job;
    Reading *reading = &team->reading;
    team->n = reading->num_ended = 0;
    if (stopped(job)) return;
    while (team->n < PIECE) {
        if (reading->next == reading->end) {
            const int prompt = __atomic_fetch_add(&shared->next_prompt, 1, __ATOMIC_RELAXED);
            if (prompt >= job->num_prompts) return;
            reading->prompt = prompt;
            reading->next = prompt_start(job, prompt);
            reading->end = job->prompt_ends[prompt];
        }
        const int prompt = reading->prompt, start = prompt_start(job, prompt);
        while (team->n < PIECE && reading->next < reading->end) {
            const int position = reading->next - start;
            const int32_t token = job->prompt_tokens[reading->next++];
            team->inputs[team->n++] = (Input){token, position, shared->prompts + prompt};
        }
        if (reading->next < reading->end) return;
        reading->places[reading->num_ended] = team->n - 1;
        reading->ended[reading->num_ended++] = prompt;
    }
}

/* Read prompts into their caches, and keep the logits after the last token of each.
 *
 * What the first member has written is read between two meetings: behind the second one it may
 * write again. */
static void read_prompts(Member *me) {
    Team *team = me->team;
    const Reading *reading = &team->reading;
    const Model *m = team->shared->model;
    const int C = m->hidden_size, stride = padded(m->vocab_size, TILE), first_member = !me->index;
    for (;;) {
        if (first_member) fill_piece(team);
        meet_all(me);
        const int n = team->n, num_ended = reading->num_ended;
        if (!n) return;
        read_inputs(me, n);
        for (int first = 0; first < num_ended; first += team->num_slots) {
            const int left = num_ended - first;
            const int count = left < team->num_slots ? left : team->num_slots;
            for (int e = 0; first_member && e < count; e++)
                memmove(team->input + e * C, team->input + reading->places[first + e] * C,
                        C * sizeof(num));
            meet_all(me);
            compute_logits(me, count);
            for (int e = 0; first_member && e < count; e++)
                memcpy(team->shared->first_logits + (int64_t)reading->ended[first + e] * stride,
                       team->product + (int64_t)e * stride, stride * sizeof(float));
        }
    }
}

/* -- rows -------------------------------------------------------------------------------------- */

/* Give a slot the next row of the queue, and its first token. Returns 0 when no row is left. A row
 * whose first token ends it needs no slot: the next row is tried. */
static int start_row(Member *me, Slot *slot) {
    Shared *shared = me->team->shared;
    const Model *m = shared->model;
    const Job *job = shared->job;
    /* Each row has room for what it does not share with its prompt; so all rooms are alike. */
    const CacheShape shape = cache_shape(m, LANES - 1 + job->max_new_tokens);
    for (;;) {
        const int row = __atomic_fetch_add(&shared->next_row, 1, __ATOMIC_RELAXED);
        if (row >= job->num_rows) return 0;
        const int prompt = job->prompt_of[row], length = prompt_length(job, prompt);
        const Thought thought = new_thought(job->budget, job->at_line[prompt]);
        *slot = (Slot){.row = row, .next.position = length, .thought = thought, .room = slot->room};
        const int64_t stride = padded(m->vocab_size, TILE);
        if (draw(me, slot, shared->first_logits + prompt * stride)) continue;
        if (!slot->room) slot->room = allocate(shape.total_size * sizeof(num));
        if (!slot->room) {
            me->team->failed = 1;
            return 0;
        }
        slot->cache = continued(m, shared->prompts + prompt, length, slot->room, shape);
        return 1;
    }
}

/* Take rows that have ended out of slots 0 .. n-1, and fill all slots from the queue. The last row
 * takes the place of one that has ended, and leaves its own room behind. */
static void fill_slots(Member *me) {
    Team *team = me->team;
    for (int s = team->n - 1; s >= 0; s--) {
        if (!team->slots[s].ended) continue;
        Slot *last = team->slots + --team->n;
        num *const room = team->slots[s].room;
        team->slots[s] = *last;
        last->room = room;
    }
    if (stopped(team->shared->job)) team->n = 0;
    else
        while (team->n < team->num_slots && start_row(me, team->slots + team->n)) team->n++;
    if (team->failed) team->n = 0;
    for (int s = 0; s < team->n; s++) {
        Slot *slot = team->slots + s;
        team->inputs[s] = (Input){slot->next.token, slot->next.position++, &slot->cache};
    }
}

/* Rows of the queue until it is empty. */
static void generate_rows(Member *me) {
    Team *team = me->team;
    const int64_t stride = padded(team->shared->model->vocab_size, TILE);
    for (;;) {
        if (!me->index) fill_slots(me);
        meet_all(me);
        const int n = team->n;
        if (!n) return;
        read_inputs(me, n);
        compute_logits(me, n);
        const Part rows = part_of(me, n);
        for (int s = rows.first; s < rows.last; s++)
            team->slots[s].ended = draw(me, team->slots + s, team->product + s * stride);
        meet_all(me);
    }
}

/* -- threads ----------------------------------------------------------------------------------- */

static int greater(int one, int other) { return one > other ? one : other; }

/* A team's memory, cut out of one block at `x`; 0 without memory. */
static int make_team(Team *team) {
    const Model *m = team->shared->model;
    const int HD = m->num_heads * m->head_dim, C = m->hidden_size, I = m->intermediate_size;
    const int rows = greater(PIECE, team->num_slots);
    const int64_t wide = greater(greater(qkv_width(m), 2 * I), C);
    const int64_t inner = rows * padded(wide, TILE);
    const int64_t outer = team->num_slots * padded(m->vocab_size, TILE);
    const int64_t products = inner > outer ? inner : outer;
    const int64_t inputs = (int64_t)rows * greater(greater(I, C), HD);
    team->x = allocate((rows * (int64_t)C + products) * sizeof(float) + inputs * sizeof(num));
    team->slots = allocate(team->num_slots * sizeof(Slot));
    team->inputs = allocate(rows * sizeof(Input));
    if (!team->x || !team->slots || !team->inputs) return 0;
    team->product = team->x + rows * (int64_t)C;
    team->input = (num *)(team->product + products);
    return 1;
}

/* A member's memory, cut out of one block at `scores`; 0 without memory. */
static int make_member(Member *member) {
    const Model *m = member->team->shared->model;
    const Job *job = member->team->shared->job;
    const int64_t vocab = padded(m->vocab_size, LANES);
    const int64_t positions = padded(job->longest_prompt + job->max_new_tokens, LANES);
    member->scores = allocate((ABREAST * positions + 2 * vocab) * sizeof(float));
    if (!member->scores) return 0;
    member->tempered = member->scores + ABREAST * positions;
    member->probs = member->tempered + vocab;
    for (int64_t v = m->vocab_size; v < vocab; v++) member->tempered[v] = -1e30f;
    return 1;
}

static void *work(void *argument) {
    Member *me = argument;
    Shared *shared = me->team->shared;
    /* Until all threads that can be had are there, nobody knows how large the teams are. */
    pthread_mutex_lock(&shared->gate);
    pthread_mutex_unlock(&shared->gate);
    read_prompts(me);
    meet(&shared->prompts_read, shared->size);
    generate_rows(me);
    return NULL;
}

/* Start the threads of all teams, this one among them, and wait for their ends. Where the system
 * gives fewer threads, the teams that it was enough for share the work. */
static void run(Shared *shared, Member *members) {
    const int threads = shared->job->threads;
    pthread_t ids[threads];
    pthread_mutex_lock(&shared->gate);
    for (int t = 0; t < threads; t++) {
        if (t && pthread_create(ids + t, NULL, work, members + t)) break;
        members[t].team->size++;
        shared->size++;
    }
    pthread_mutex_unlock(&shared->gate);
    work(members);
    for (int t = 1; t < shared->size; t++) pthread_join(ids[t], NULL);
}

/* With memory for all teams and members; returns whether that was there. */
static int run_teams(Shared *shared) {
    const Job *job = shared->job;
    const int per_team = job->threads / job->teams;
    Team teams[job->teams];
    Member members[job->threads];
    int made = 1;
    for (int t = 0; t < job->teams; t++) {
        teams[t] = (Team){.shared = shared, .meeting = NEW_MEETING};
        const int fair = (job->num_rows + job->teams - 1) / job->teams, most = SLOTS * per_team;
        teams[t].num_slots = fair < most ? fair : most;
        made &= make_team(teams + t);
    }
    for (int t = 0; t < job->threads; t++) {
        members[t] = (Member){.team = teams + t / per_team, .index = t % per_team};
        made &= make_member(members + t);
    }
    if (made) run(shared, members);
    for (int t = 0; t < job->threads; t++) free(members[t].scores);
    for (int t = 0; t < job->teams; t++) {
        for (int s = 0; teams[t].slots && s < teams[t].num_slots; s++) free(teams[t].slots[s].room);
        free(teams[t].slots);
        free(teams[t].inputs);
        free(teams[t].x);
        made &= !teams[t].failed;
    }
    return made;
}

/* Generate `num_rows` completions, of at least one prompt; `threads` is a multiple of `teams`. */
int32_t aha_generate(const Model *m, const Job *job) {
    Shared shared = {.model = m, .job = job, .gate = PTHREAD_MUTEX_INITIALIZER,
                     .prompts_read = NEW_MEETING};
    shared.prompts = allocate(job->num_prompts * sizeof(Cache));
    shared.first_logits = allocate(job->num_prompts * padded(m->vocab_size, TILE) * sizeof(float));
    int64_t numbers = 0;
    for (int p = 0; p < job->num_prompts; p++)
        numbers += cache_shape(m, prompt_length(job, p)).total_size;
    num *caches = allocate(numbers * sizeof(num)), *next = caches;
    int made = shared.prompts && shared.first_logits && caches;
    for (int p = 0; made && p < job->num_prompts; p++) {
        shared.prompts[p].own_shape = cache_shape(m, prompt_length(job, p));
        shared.prompts[p].own = next;
        next += shared.prompts[p].own_shape.total_size;
    }
    made = made && run_teams(&shared);
    free(shared.prompts);
    free(shared.first_logits);
    free(caches);
    return !made ? NO_MEMORY : stopped(job) ? STOPPED : DONE;
}
