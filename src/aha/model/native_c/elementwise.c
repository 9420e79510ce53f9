/* What a training step computes between its matrix products: norms, SwiGLU and the masked softmax,
 * forward and backward, each in one pass over memory. The maths and its sources are in
 * aha.model.ops. Everything inside is float32; bf16 is rounded where a result is stored. "wide": the
 * residual stream, which is float32 although what is read from it is not.
 *
 * Rows are divided among `threads` workers. No row's numbers depend on which worker has it.
 */
#include <math.h>

#include "numbers.h"
#include "workers.h"

struct Job {
    const num *a, *b;
    num *out;
    const float *wide;
    float *wide_out;
    float *scale; /* [rows] */
    int64_t width, size;
    float eps;
};

/* -- x / sqrt(mean(x^2) + eps) ----------------------------------------------------------------- */

static void normalise_rows(const Job *j, int64_t first, int64_t last) {
    for (int64_t n = first; n < last; n++) {
        const num *x = j->a + n * j->width;
        num *out = j->out + n * j->width;
        vec squares = {0};
        for (int64_t i = 0; i < j->width; i += LANES) squares += widen(x + i) * widen(x + i);
        const float scale = 1.0f / sqrtf(sum(squares) / j->width + j->eps);
        for (int64_t i = 0; i < j->width; i += LANES) narrow(out + i, widen(x + i) * scale);
        j->scale[n] = scale;
    }
}

static void normalise_back(const Job *j, int64_t first, int64_t last) {
    for (int64_t n = first; n < last; n++) {
        const num *grad = j->a + n * j->width, *y = j->b + n * j->width;
        num *out = j->out + n * j->width;
        vec both = {0};
        for (int64_t i = 0; i < j->width; i += LANES) both += widen(grad + i) * widen(y + i);
        const float mean = sum(both) / j->width, scale = j->scale[n];
        for (int64_t i = 0; i < j->width; i += LANES)
            narrow(out + i, (widen(grad + i) - widen(y + i) * mean) * scale);
    }
}

void aha_normalise(const num *x, num *y, float *scale, int64_t rows, int64_t width, float eps,
                   int threads) {
    const Job job = {.a = x, .out = y, .scale = scale, .width = width, .eps = eps};
    spread(&job, normalise_rows, rows, rows * width, threads);
}

void aha_normalise_back(const num *grad, const num *y, float *scale, num *out, int64_t rows,
                        int64_t width, int threads) {
    const Job job = {.a = grad, .b = y, .scale = scale, .out = out, .width = width};
    spread(&job, normalise_back, rows, rows * width, threads);
}

static void normalise_wide_rows(const Job *j, int64_t first, int64_t last) {
    for (int64_t n = first; n < last; n++) {
        const float *x = j->wide + n * j->width;
        num *out = j->out + n * j->width;
        vec squares = {0};
        for (int64_t i = 0; i < j->width; i += LANES) squares += load(x + i) * load(x + i);
        const float scale = 1.0f / sqrtf(sum(squares) / j->width + j->eps);
        for (int64_t i = 0; i < j->width; i += LANES) narrow(out + i, load(x + i) * scale);
        j->scale[n] = scale;
    }
}

static void normalise_wide_back(const Job *j, int64_t first, int64_t last) {
    for (int64_t n = first; n < last; n++) {
        const num *grad = j->a + n * j->width, *y = j->b + n * j->width;
        float *out = j->wide_out + n * j->width;
        vec both = {0};
        for (int64_t i = 0; i < j->width; i += LANES) both += widen(grad + i) * widen(y + i);
        const float mean = sum(both) / j->width, scale = j->scale[n];
        for (int64_t i = 0; i < j->width; i += LANES)
            store(out + i, (widen(grad + i) - widen(y + i) * mean) * scale);
    }
}

void aha_normalise_wide(const float *x, num *y, float *scale, int64_t rows, int64_t width,
                        float eps, int threads) {
    const Job job = {.wide = x, .out = y, .scale = scale, .width = width, .eps = eps};
    spread(&job, normalise_wide_rows, rows, rows * width, threads);
}

void aha_normalise_wide_back(const num *grad, const num *y, float *scale, float *out, int64_t rows,
                             int64_t width, int threads) {
    const Job job = {.a = grad, .b = y, .scale = scale, .wide_out = out, .width = width};
    spread(&job, normalise_wide_back, rows, rows * width, threads);
}

/* -- silu(gate) * up --------------------------------------------------------------------------- */

static void swiglu_rows(const Job *j, int64_t first, int64_t last) {
    for (int64_t n = first; n < last; n++) {
        const num *gate = j->a + 2 * n * j->width, *up = gate + j->width;
        num *out = j->out + n * j->width;
        for (int64_t i = 0; i < j->width; i += LANES) {
            const vec g = widen(gate + i);
            narrow(out + i, g / (1.0f + exponential(-g)) * widen(up + i));
        }
    }
}

static void swiglu_back(const Job *j, int64_t first, int64_t last) {
    for (int64_t n = first; n < last; n++) {
        const num *gate = j->b + 2 * n * j->width, *up = gate + j->width;
        const num *grad = j->a + n * j->width;
        num *out = j->out + 2 * n * j->width;
        for (int64_t i = 0; i < j->width; i += LANES) {
            const vec g = widen(gate + i), d = widen(grad + i);
            const vec sigmoid = 1.0f / (1.0f + exponential(-g));
            narrow(out + j->width + i, d * g * sigmoid);
            narrow(out + i, d * widen(up + i) * sigmoid * (1.0f + g * (1.0f - sigmoid)));
        }
    }
}

void aha_swiglu(const num *gate_up, num *out, int64_t rows, int64_t width, int threads) {
    const Job job = {.a = gate_up, .out = out, .width = width};
    spread(&job, swiglu_rows, rows, rows * width, threads);
}

void aha_swiglu_back(const num *grad, const num *gate_up, num *out, int64_t rows, int64_t width,
                     int threads) {
    const Job job = {.a = grad, .b = gate_up, .out = out, .width = width};
    spread(&job, swiglu_back, rows, rows * width, threads);
}

/* -- softmax over the keys that a query attends to, in place ----------------------------------- */

/* Row n is query `n % size` of its block and attends to
 * `width - size + n % size + 1` keys: the queries are at the last `size` of `width` positions. */
static void softmax_rows(const Job *j, int64_t first, int64_t last) {
    float row[padded(j->width, LANES)];
    for (int64_t n = first; n < last; n++) {
        num *x = j->out + n * j->width;
        const int64_t seen = j->width - j->size + n % j->size + 1;
        const int64_t whole = seen / LANES * LANES, end = padded(seen, LANES);
        for (int64_t i = 0; i < whole; i += LANES) store(row + i, widen(x + i));
        for (int64_t i = whole; i < end; i++) row[i] = i < seen ? widen_one(x[i]) : -1e30f;
        vec most = all(-1e30f);
        for (int64_t i = 0; i < end; i += LANES) {
            const vec block = load(row + i);
            most = pick(block > most, block, most);
        }
        float top = -1e30f;
        for (int64_t i = 0; i < LANES; i++) top = most[i] > top ? most[i] : top;
        vec total = {0};
        for (int64_t i = 0; i < end; i += LANES) {
            const vec weight = exponential(load(row + i) - top);
            store(row + i, weight);
            if (i < whole) total += weight;
        }
        float norm = sum(total);
        for (int64_t i = whole; i < seen; i++) norm += row[i];
        const float share = 1.0f / norm;
        for (int64_t i = 0; i < whole; i += LANES) narrow(x + i, load(row + i) * share);
        for (int64_t i = whole; i < seen; i++) x[i] = narrow_one(row[i] * share);
        memset(x + seen, 0, (j->width - seen) * sizeof(num));
    }
}

/* grad = weights * (grad - sum(grad * weights)), in place in `out`. */
static void softmax_back(const Job *j, int64_t first, int64_t last) {
    for (int64_t n = first; n < last; n++) {
        const num *w = j->a + n * j->width;
        num *grad = j->out + n * j->width;
        const int64_t seen = j->width - j->size + n % j->size + 1;
        const int64_t whole = seen / LANES * LANES;
        vec both = {0};
        for (int64_t i = 0; i < whole; i += LANES) both += widen(w + i) * widen(grad + i);
        float dot = sum(both);
        for (int64_t i = whole; i < seen; i++) dot += widen_one(w[i]) * widen_one(grad[i]);
        for (int64_t i = 0; i < whole; i += LANES)
            narrow(grad + i, widen(w + i) * (widen(grad + i) - dot));
        for (int64_t i = whole; i < seen; i++)
            grad[i] = narrow_one(widen_one(w[i]) * (widen_one(grad[i]) - dot));
        memset(grad + seen, 0, (j->width - seen) * sizeof(num));
    }
}

void aha_softmax(num *scores, int64_t rows, int64_t width, int64_t size, int threads) {
    const Job job = {.out = scores, .width = width, .size = size};
    spread(&job, softmax_rows, rows, rows * width, threads);
}

void aha_softmax_back(const num *weights, num *grad, int64_t rows, int64_t width, int64_t size,
                      int threads) {
    const Job job = {.a = weights, .out = grad, .width = width, .size = size};
    spread(&job, softmax_back, rows, rows * width, threads);
}
