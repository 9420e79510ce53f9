/* What Python hands to the loop: the model, and the rows to generate. */
#include "numbers.h"

#include "forcing.h"

/* aha.rollout.c_loop.ModelStruct fills this by the same names; a test compares the two. */
typedef struct {
    int32_t hidden_size, num_heads, num_kv_heads, head_dim, intermediate_size, num_layers, vocab_size;
    float rms_norm_eps;
    const num *embedding;               /* [vocab_size, hidden_size] */
    const float *cos, *sin;             /* [positions, D / 2] */
    const num *const *matrices;         /* of each layer: qkv, o, gate and up, down; last: lm_head */
    const float *const *biases;         /* of each layer: qkv */
    const float *const *head_norms;     /* of each layer, or NULL: [H + K, D], for queries and keys */
} Model;

/* aha.rollout.c_loop.JobStruct fills this by the same names; a test compares the two. */
typedef struct {
    int32_t num_prompts, num_rows, max_new_tokens, longest_prompt, num_stop_tokens;
    int32_t teams, threads;       /* threads of all teams together */
    float temperature;            /* 0 is greedy */
    const int32_t *prompt_tokens; /* of all prompts, one after the other */
    const int32_t *prompt_ends;   /* [num_prompts], in prompt_tokens */
    const int32_t *stop_tokens;
    const int32_t *prompt_of; /* [num_rows] */
    const uint64_t *seeds;    /* [num_rows] */
    const Budget *budget;
    const uint8_t *at_line; /* [num_prompts]: whether a prompt ends with a line break */
    const int32_t *stopped; /* not 0 as soon as nobody wants the rows any more */
    int32_t *tokens, *counts; /* [num_rows, max_new_tokens], [num_rows] */
    float *logprobs;          /* [num_rows, max_new_tokens] */
    float *entropies;         /* [num_rows, max_new_tokens] */
    uint8_t *forced;          /* [num_rows, max_new_tokens], with a budget */
} Job;
