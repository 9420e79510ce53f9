/* Logits of a training step: hidden states times the output head, in float32.
 *
 * A tensor library rounds the product of two bf16 matrices to bf16, which moves a logit of 20 by up
 * to a sixteenth. The sums are float32 anyway, and here they are stored as such. Each number is a
 * sum over its own row alone, in the order of the loop that generates (aha.rollout).
 */
#include "numbers.h"
#include "workers.h"

struct Job {
    const num *x, *head; /* [rows, width], [outputs, width] */
    float *out;          /* [rows, outputs padded to TILE] */
    num *scratch;        /* [parts, width, TILE] */
    int64_t rows, outputs, width, parts;
};

int64_t aha_logits_tile(void) { return TILE; }

/* Rows `first` .. of the head as the tile that `multiply` reads; behind the last row zeros. */
static void pack(const Job *j, int64_t first, num *tile) {
    const int together = sizeof(float) / sizeof(num); /* neighbours in k that stay so: bf16's pairs */
    for (int64_t n = 0; n < TILE; n++)
        for (int64_t k = 0; k < j->width; k += together) {
            num *place = tile + k * TILE + n * together;
            if (first + n < j->outputs)
                memcpy(place, j->head + (first + n) * j->width + k, sizeof(float));
            else memset(place, 0, sizeof(float));
        }
}

/* Tiles are packed one at a time, for all rows: a packed head would be a second one in memory. */
static void logits_parts(const Job *j, int64_t first, int64_t last) {
    const int64_t tiles = padded(j->outputs, TILE) / TILE;
    for (int64_t part = first; part < last; part++) {
        num *tile = j->scratch + part * j->width * TILE;
        for (int64_t t = tiles * part / j->parts; t < tiles * (part + 1) / j->parts; t++) {
            pack(j, t * TILE, tile);
            multiply(j->rows, j->x, j->width, tile, j->outputs, 0, 1, j->out + t * TILE);
        }
    }
}

void aha_logits(const num *x, const num *head, float *out, num *scratch, int64_t rows,
                int64_t outputs, int64_t width, int threads) {
    const Job job = {.x = x, .head = head, .out = out, .scratch = scratch, .rows = rows,
                     .outputs = outputs, .width = width, .parts = threads};
    spread(&job, logits_parts, threads, rows * outputs, threads);
}
