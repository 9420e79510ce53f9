/* Drawing a row's next token from its logits. */

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

/* The logits over the temperature, into `tempered`; returns the greatest. */
static float temper(const float *logits, float temperature, int V, float *tempered) {
    const float divisor = temperature > 0 ? temperature : 1.0f;
    const int whole = V / LANES * LANES;
    vec most = all(-1e30f);
    for (int v = 0; v < whole; v += LANES) {
        const vec block = load(logits + v) / divisor;
        store(tempered + v, block);
        most = pick(block > most, block, most);
    }
    float top = -1e30f;
    for (int i = 0; i < LANES; i++) top = most[i] > top ? most[i] : top;
    for (int v = whole; v < V; v++) {
        tempered[v] = logits[v] / divisor;
        top = tempered[v] > top ? tempered[v] : top;
    }
    return top;
}

enum { STRETCH = 1024 }; /* tokens of a vocabulary between two sums that are kept */

/* The slot's next token: the first one at which the cumulative sum of the probabilities reaches a
 * uniform random number. A thinking budget may put another one in its place, and take tokens back.
 * Returns whether the row has ended.
 *
 * Sums over the vocabulary are double: 150,000 float additions lose more than the rarest tokens
 * weigh. With p = exp(x - top), Z = sum(p): log-prob = x - top - log Z, entropy = log Z + sum(p
 * (top - x)) / Z. The sum up to every STRETCH-th token is kept, so that the search for the token
 * adds the numbers of one stretch again, and not half of the vocabulary.
 */
static int draw(Member *me, Slot *slot, const float *logits) {
    const Job *job = me->team->shared->job;
    const int V = me->team->shared->model->vocab_size;
    float *tempered = me->tempered, *p = me->probs;
    const float top = temper(logits, job->temperature, V, tempered);
    for (int v = 0; v < V; v += LANES) store(p + v, exponential(load(tempered + v) - top));
    const int stretches = padded(V, STRETCH) / STRETCH;
    double total = 0, gap = 0, sums[stretches + 1];
    for (int s = 0; s < stretches; s++) {
        sums[s] = total;
        const int end = V - s * STRETCH < STRETCH ? V : (s + 1) * STRETCH;
        for (int v = s * STRETCH; v < end; v++) {
            total += p[v];
            gap += p[v] * (top - tempered[v]);
        }
    }
    sums[stretches] = total;
    int token = 0;
    if (job->temperature > 0) {
        const double edge = uniform(job->seeds[slot->row], slot->draws) * total;
        int s = 0;
        while (s + 1 < stretches && !(sums[s + 1] >= edge)) s++;
        double cumulative = sums[s];
        for (token = s * STRETCH; token < V - 1; token++)
            if ((cumulative += p[token]) >= edge) break;
    } else {
        while (token < V && tempered[token] != top) token++;
        if (token == V) token = 0; /* none of them is a number */
    }
    slot->draws++;
    int forced = 0, back = 0;
    if (job->budget->steps)
        token = choose(job->budget, &slot->thought, V, token, slot->count, &forced, &back);
    slot->count -= back;
    slot->next.position -= back;
    const int64_t place = (int64_t)slot->row * job->max_new_tokens + slot->count++;
    if (job->budget->steps) job->forced[place] = forced;
    job->tokens[place] = slot->next.token = token;
    job->logprobs[place] = (float)((double)tempered[token] - top - log(total));
    job->entropies[place] = (float)(gap / total + log(total));
    int ended = slot->count == job->max_new_tokens;
    for (int i = 0; i < job->num_stop_tokens; i++) ended |= token == job->stop_tokens[i];
    if (ended) job->counts[slot->row] = slot->count;
    return ended;
}
