/* The thinking budget of one row: aha.rollout.forcing.Forcing.choose, in the same order. */

#include <stdint.h>

enum { STATES = 8, NOTHING = -1 }; /* characters of </think>; no forced token waits */

/* A budget in the tokens of the vocabulary; steps is NULL where there is none. */
typedef struct {
    const uint8_t *steps;             /* [STATES, vocab_size]: characters written after a token */
    const uint8_t *ends_line, *stops; /* [vocab_size] */
    const int32_t *texts, *next;      /* forced tokens, and the place of each one's follower */
    const int32_t *close_starts;      /* [STATES + 1], in texts */
    int32_t wait_start, wait_size, max_tokens, min_tokens, waits;
} Budget;

typedef struct {
    int32_t thinking, at_line, matched, partial, waits, queue;
} Thought;

static Thought new_thought(const Budget *budget, int at_line) {
    return (Thought){.thinking = budget->steps != NULL, .at_line = at_line, .queue = NOTHING};
}

/* The token to record in place of the `drawn` one, after `used` others. `forced` says whether it is
 * a forced one, `back` how many recorded tokens before it are taken back. */
static int choose(
    const Budget *b, Thought *t, int vocab_size, int drawn, int used, int *forced, int *back) {
    const int pending = t->queue >= 0;
    const int full = t->thinking && !pending && used >= b->max_tokens;
    const int own = t->thinking && !pending && !full;
    const int state = b->steps[t->matched * (int64_t)vocab_size + drawn];
    const int begins = state > 0 && b->steps[drawn] == state;
    const int closes = own && state == STATES;
    const int half = closes && !begins ? t->partial : 0, thought = used - half;
    const int waiting = (closes || (own && b->stops[drawn])) && t->waits < b->waits &&
                        thought < b->min_tokens && thought + b->wait_size <= b->max_tokens;
    int place = t->queue;
    if (full) place = b->close_starts[t->at_line && !t->matched ? STATES : t->matched];
    if (waiting) place = b->wait_start;
    *forced = pending || full || waiting;
    *back = waiting ? half : 0;
    const int token = *forced ? b->texts[place] : drawn;
    t->queue = *forced ? b->next[place] : NOTHING;
    t->thinking = t->thinking && !full && !(closes && !waiting);
    const int spelling = own && !waiting && state > 0 && state < STATES;
    t->matched = spelling ? state : 0;
    t->partial = spelling ? (begins ? 1 : t->partial + 1) : 0;
    if (!spelling) t->at_line = b->ends_line[token];
    t->waits += waiting;
    return token;
}
