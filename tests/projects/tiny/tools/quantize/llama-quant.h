#pragma once

#include "gguf.h"
#include "imatrix-loader.h"

enum { OVERRIDES = 64 };

struct key_override {
    char key[128];
    uint32_t type;  // GGUF_U32, GGUF_F32, GGUF_BOOL or GGUF_STRING
    uint32_t whole;
    float real;
    char text[128];
};

struct type_override {
    const char * pattern;
    const struct ggml_type * type;
};

struct quant_params {
    int ftype;
    const struct ggml_type * output_type;     // NULL: by the mixture
    const struct ggml_type * embedding_type;
    int allow_requantize;
    int leave_output;
    int only_copy;
    int pure;
    int keep_split;
    int dry_run;
    const struct imatrix * matrix;  // NULL for none
    int n_keys;
    struct key_override keys[OVERRIDES];
    int n_types;
    struct type_override types[OVERRIDES];
    int n_pruned;
    int pruned[OVERRIDES];
};

// What upstream's src/llama-quant.cpp does, with the right sizes and made-up weights. 0 when done.
int llama_model_quantize(const char * input, const char * output, const struct quant_params * params);

// Which type a tensor gets, NULL for none that its rows fit; says what upstream says of it.
struct quant_state {
    const struct quant_params * params;
    int n_layers;
    int heads_per_kv;
    int is_tied;
    int n_attn_v;
    int i_attn_v;
    int i_ffn_down;
    int i_ffn_gate;
    int i_ffn_up;
    int n_fallback;
};
int tensor_may_change(const struct quant_params * params, const struct gguf_tensor * tensor);
const struct ggml_type * tensor_type(struct quant_state * state, const struct gguf_tensor * tensor);
int tensor_needs_matrix(const char * name, const struct ggml_type * type, int ftype);
int is_attn_v(const char * name);
const struct ggml_type * ftype_main(int ftype);
