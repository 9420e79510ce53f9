/* Vectors in plain C, the two types that weights are stored in, and the matrix product.
 *
 * A vector (LANES floats) is as wide as the processor's. A wider one is correct and slow: gcc keeps
 * it in memory, which made generation seven times slower and training half as fast again. A matrix
 * is stored in tiles of TILE outputs; TALL rows of input are multiplied by one tile at once, so
 * that TALL * TILE / LANES sums stay in registers.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if BF16
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { LANES = 16, TILE = 32, TALL = 12 };
#elif defined(__AVX__)
enum { LANES = 8, TILE = 16, TALL = 6 };
#elif defined(__aarch64__)
enum { LANES = 4, TILE = 16, TALL = 6 };
#else
enum { LANES = 4, TILE = 8, TALL = 6 };
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t hvec __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

enum { WIDE = TILE / LANES };

#if BF16
typedef uint16_t num;
#else
typedef float num;
#endif

static inline int64_t padded(int64_t count, int to) { return (count + to - 1) / to * to; }
static inline vec load(const float *p) { return *(const vec *)p; }
static inline void store(float *p, vec v) { *(vec *)p = v; }
static inline vec all(float f) { return f - (vec){0}; }

static inline vec pick(ivec mask, vec yes, vec no) {
    return (vec)((mask & (ivec)yes) | (~mask & (ivec)no));
}

static inline float sum(vec v) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

/* e^x to a relative 2e-7: x = n ln 2 + r with a whole n and |r| <= ln(2) / 2, and e^x = 2^n e^r.
 *
 * Adding `shift` rounds x / ln 2 to n, because floats from 2^23 to 2^24 are the whole numbers, and
 * leaves n in the low bits, so the integer difference of the two is n too. ln 2 is subtracted in
 * two parts, the first short enough that n times it is exact. e^r is Taylor's sum to r^7. 2^n is
 * added to the exponent bits of e^r (from bit 23 on). Example: x = 1: n = 1, r = 0.30685, e^r =
 * 1.35914, 2 e^r = 2.71828. The C library's expf works on one number at a time. */
static inline vec exponential(vec x) {
    const vec shift = all(12582912.0f); /* 1.5 * 2^23 */
    x = pick(x < -87.0f, all(-87.0f), x);
    x = pick(x > 88.0f, all(88.0f), x);
    vec whole = x * 1.44269504f + shift;
    ivec power = (ivec)whole - (ivec)shift;
    whole -= shift;
    vec r = x - whole * 0.693145752f - whole * 1.42860677e-6f;
    vec y = 1.0f / 720 + r * (1.0f / 5040);
    y = 1.0f / 120 + r * y;
    y = 1.0f / 24 + r * y;
    y = 1.0f / 6 + r * y;
    y = 0.5f + r * y;
    y = 1.0f + r * y;
    y = 1.0f + r * y;
    /* Not a number stays that: a run that has gone wrong must be seen to. */
    return pick(x == x, (vec)((ivec)y + (power << 23)), x);
}

/* -- the two number types ---------------------------------------------------------------------- */

#if BF16
static inline vec widen(const num *p) {
    return (vec)(__builtin_convertvector(*(const hvec *)p, uvec) << 16);
}
static inline void narrow(num *p, vec v) {
    _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh((__m512)v));
}
static inline num narrow_one(float f) {
    num out[LANES];
    narrow(out, all(f));
    return out[0];
}
static inline float widen_one(num n) {
    const uint32_t bits = (uint32_t)n << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
#else
static inline vec widen(const num *p) { return load(p); }
static inline void narrow(num *p, vec v) { store(p, v); }
static inline num narrow_one(float f) { return f; }
static inline float widen_one(num n) { return n; }
#endif

/* y[rows, TILE] = x[rows, K] times one tile of a matrix; `rows` is a constant where it is inlined,
 * and the order of the sum does not depend on it.
 *
 * The tile is [K][TILE]: one step of k multiplies a vector of weights by one number of each row. In
 * bf16 it is [K / 2][TILE][2], because AVX-512's dot instruction multiplies pairs of neighbours in
 * k and adds both products to a float32 sum: bf16 is rounded when weights and inputs are stored,
 * never in a sum (aha.rollout.c_loop.pack makes both layouts). */
static inline __attribute__((always_inline)) void
multiply_tile(const int rows, const num *x, int K, const num *tile, float *y, int stride) {
    vec total[TALL][WIDE];
    for (int r = 0; r < rows; r++)
        for (int w = 0; w < WIDE; w++) total[r][w] = (vec){0};
#if BF16
    for (int k = 0; k < K; k += 2, tile += 2 * TILE) {
        __m512bh weights[WIDE];
        for (int w = 0; w < WIDE; w++)
            weights[w] = (__m512bh)_mm512_loadu_si512(tile + 2 * LANES * w);
        for (int r = 0; r < rows; r++) {
            int32_t pair;
            memcpy(&pair, x + r * K + k, sizeof pair);
            const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
            for (int w = 0; w < WIDE; w++)
                total[r][w] = (vec)_mm512_dpbf16_ps((__m512)total[r][w], both, weights[w]);
        }
    }
#else
    for (int k = 0; k < K; k++, tile += TILE)
        for (int r = 0; r < rows; r++)
            for (int w = 0; w < WIDE; w++) total[r][w] += x[r * K + k] * load(tile + LANES * w);
#endif
    for (int r = 0; r < rows; r++)
        for (int w = 0; w < WIDE; w++) store(y + r * stride + LANES * w, total[r][w]);
}

/* The columns of tiles `first` up to `last` of y [rows, N padded] = x [rows, K] times a matrix. */
static inline void multiply(int rows, const num *x, int K, const num *matrix, int N, int first,
                            int last, float *y) {
    const int64_t stride = padded(N, TILE), size = (int64_t)K * TILE;
    for (int t = first; t < last; t++) {
        const num *tile = matrix + t * size;
        float *out = y + t * TILE;
        int r = 0;
        for (; r + TALL <= rows; r += TALL)
            multiply_tile(TALL, x + r * K, K, tile, out + r * stride, stride);
        for (; r + 4 <= rows; r += 4) multiply_tile(4, x + r * K, K, tile, out + r * stride, stride);
        for (; r < rows; r++) multiply_tile(1, x + r * K, K, tile, out + r * stride, stride);
    }
}
