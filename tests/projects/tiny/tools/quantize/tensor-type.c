// Which type each tensor of a quant gets: the rules of llama.cpp b11434's src/llama-quant.cpp, as a table.
#include "llama-quant.h"
#include "log.h"

#include <regex.h>
#include <string.h>

enum ftype {
    F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q8_0 = 7, Q5_0 = 8, Q5_1 = 9, Q2_K = 10, Q3_K_S = 11, Q3_K_M = 12, Q3_K_L = 13,
    Q4_K_S = 14, Q4_K_M = 15, Q5_K_S = 16, Q5_K_M = 17, Q6_K = 18, IQ2_XXS = 19, IQ2_XS = 20, Q2_K_S = 21, IQ3_XS = 22,
    IQ3_XXS = 23, IQ1_S = 24, IQ4_NL = 25, IQ3_S = 26, IQ3_M = 27, IQ2_S = 28, IQ2_M = 29, IQ4_XS = 30, IQ1_M = 31,
    BF16 = 32, TQ1_0 = 36, TQ2_0 = 37, MXFP4_MOE = 38, Q1_0 = 40, Q2_0 = 41,
};

static const struct { int ftype; const char * type; } MAIN_TYPES[] = {
    { F32, "f32" },       { F16, "f16" },         { BF16, "bf16" },     { Q4_0, "q4_0" },       { Q4_1, "q4_1" },
    { Q5_0, "q5_0" },     { Q5_1, "q5_1" },       { Q8_0, "q8_0" },     { Q1_0, "q1_0" },       { Q2_0, "q2_0" },
    { Q2_K, "q2_K" },     { Q2_K_S, "q2_K" },     { Q3_K_S, "q3_K" },   { Q3_K_M, "q3_K" },     { Q3_K_L, "q3_K" },
    { Q4_K_S, "q4_K" },   { Q4_K_M, "q4_K" },     { Q5_K_S, "q5_K" },   { Q5_K_M, "q5_K" },     { Q6_K, "q6_K" },
    { TQ1_0, "tq1_0" },   { TQ2_0, "tq2_0" },     { IQ1_S, "iq1_s" },   { IQ1_M, "iq1_m" },     { IQ2_XXS, "iq2_xxs" },
    { IQ2_XS, "iq2_xs" }, { IQ2_S, "iq2_xs" },    { IQ2_M, "iq2_s" },   { IQ3_XXS, "iq3_xxs" }, { IQ3_XS, "iq3_s" },
    { IQ3_S, "iq3_s" },   { IQ3_M, "iq3_s" },     { IQ4_NL, "iq4_nl" }, { IQ4_XS, "iq4_xs" },   { MXFP4_MOE, "mxfp4" },
    { -1, NULL },
};

static const char * const FALLBACKS[][2] = {
    { "iq1_s", "iq4_nl" },   { "iq1_m", "iq4_nl" }, { "iq2_xxs", "iq4_nl" }, { "iq2_xs", "iq4_nl" }, { "iq2_s", "iq4_nl" },
    { "iq3_xxs", "iq4_nl" }, { "iq3_s", "iq4_nl" }, { "iq4_xs", "iq4_nl" },  { "q2_0", "q4_0" },     { "q2_K", "q4_0" },
    { "q3_K", "q4_0" },      { "tq1_0", "q4_0" },   { "tq2_0", "q4_0" },     { "q4_K", "q5_0" },     { "q5_K", "q5_1" },
    { "q6_K", "q8_0" },      { NULL, NULL },
};

enum when {
    ALWAYS, FEW_KV_HEADS, FIRST_TWO, FIRST_FOUR, FIRST_EIGHTH, FIRST_SIXTEENTH, MORE_BITS, MIDDLE, NO_MATRIX,
    FIRST_EIGHTH_NO_MATRIX, FIRST_EIGHTH_MATRIX,
};

// The first row that fits decides; without one a tensor gets the main type.
static const struct { const char * part; int ftype; enum when when; const char * type; } MIXTURES[] = {
    { "attn_v", IQ2_XXS, FEW_KV_HEADS, "q4_K" }, { "attn_v", IQ2_XXS, ALWAYS, "q2_K" },
    { "attn_v", IQ2_XS, FEW_KV_HEADS, "q4_K" },  { "attn_v", IQ2_XS, ALWAYS, "q2_K" },
    { "attn_v", IQ1_S, FEW_KV_HEADS, "q4_K" },   { "attn_v", IQ1_S, ALWAYS, "q2_K" },
    { "attn_v", IQ1_M, FEW_KV_HEADS, "q4_K" },   { "attn_v", IQ1_M, ALWAYS, "q2_K" },
    { "attn_v", IQ2_S, FEW_KV_HEADS, "q4_K" },   { "attn_v", IQ2_S, ALWAYS, "iq3_s" },
    { "attn_v", IQ2_M, FEW_KV_HEADS, "q4_K" },   { "attn_v", IQ2_M, ALWAYS, "iq3_s" },
    { "attn_v", Q2_K, FEW_KV_HEADS, "q4_K" },    { "attn_v", Q2_K, ALWAYS, "q3_K" },
    { "attn_v", Q2_K_S, FEW_KV_HEADS, "q4_K" },  { "attn_v", IQ3_XXS, FEW_KV_HEADS, "q4_K" },
    { "attn_v", IQ3_XXS, NO_MATRIX, "iq3_s" },   { "attn_v", IQ3_XS, FEW_KV_HEADS, "q4_K" },
    { "attn_v", IQ3_S, FEW_KV_HEADS, "q4_K" },   { "attn_v", IQ3_M, ALWAYS, "q4_K" },
    { "attn_v", Q3_K_M, FIRST_TWO, "q5_K" },     { "attn_v", Q3_K_M, ALWAYS, "q4_K" },
    { "attn_v", Q3_K_L, ALWAYS, "q5_K" },        { "attn_v", IQ4_NL, FEW_KV_HEADS, "q5_K" },
    { "attn_v", IQ4_XS, FEW_KV_HEADS, "q5_K" },  { "attn_v", Q4_K_M, MORE_BITS, "q6_K" },
    { "attn_v", Q5_K_M, MORE_BITS, "q6_K" },     { "attn_v", Q4_K_S, FIRST_FOUR, "q5_K" },
    { "ffn_down", IQ2_XXS, FIRST_EIGHTH, "q2_K" }, { "ffn_down", IQ2_XS, FIRST_EIGHTH, "q2_K" },
    { "ffn_down", IQ1_S, FIRST_EIGHTH, "q2_K" },   { "ffn_down", IQ1_M, FIRST_EIGHTH, "q2_K" },
    { "ffn_down", IQ2_S, FIRST_EIGHTH, "iq3_s" },  { "ffn_down", IQ2_M, FIRST_EIGHTH, "iq3_s" },
    { "ffn_down", Q2_K, ALWAYS, "q3_K" },          { "ffn_down", Q2_K_S, FIRST_EIGHTH, "q4_K" },
    { "ffn_down", IQ3_XXS, FIRST_EIGHTH_NO_MATRIX, "q4_K" }, { "ffn_down", IQ3_XXS, NO_MATRIX, "q3_K" },
    { "ffn_down", Q3_K_M, FIRST_SIXTEENTH, "q5_K" }, { "ffn_down", Q3_K_M, ALWAYS, "q4_K" },
    { "ffn_down", IQ3_M, FIRST_EIGHTH, "q4_K" },   { "ffn_down", Q3_K_L, ALWAYS, "q5_K" },
    { "ffn_down", Q4_K_M, MORE_BITS, "q6_K" },     { "ffn_down", Q5_K_M, MORE_BITS, "q6_K" },
    { "ffn_down", IQ4_NL, FIRST_EIGHTH_NO_MATRIX, "q5_K" }, { "ffn_down", IQ4_XS, FIRST_EIGHTH_NO_MATRIX, "q5_K" },
    { "ffn_down", Q4_K_S, FIRST_EIGHTH, "q5_K" },  { "ffn_down", Q4_0, FIRST_EIGHTH_MATRIX, "q4_1" },
    { "ffn_down", Q5_0, FIRST_EIGHTH_MATRIX, "q5_1" },
    { "attn_output.weight", IQ1_S, ALWAYS, "iq2_xxs" }, { "attn_output.weight", IQ1_M, ALWAYS, "iq2_xxs" },
    { "attn_output.weight", IQ2_S, ALWAYS, "iq3_s" },   { "attn_output.weight", IQ2_M, ALWAYS, "iq3_s" },
    { "attn_output.weight", Q2_K, ALWAYS, "q3_K" },     { "attn_output.weight", IQ3_XXS, ALWAYS, "iq3_s" },
    { "attn_output.weight", Q3_K_M, ALWAYS, "q4_K" },   { "attn_output.weight", Q3_K_L, ALWAYS, "q5_K" },
    { "attn_output.weight", IQ3_M, ALWAYS, "q4_K" },
    { "attn_k.weight", IQ3_XS, ALWAYS, "iq3_xxs" }, { "attn_k.weight", IQ3_XXS, ALWAYS, "iq2_s" },
    { "attn_q.weight", IQ3_XS, ALWAYS, "iq3_xxs" }, { "attn_q.weight", IQ3_XXS, ALWAYS, "iq2_s" },
    { "ffn_gate", IQ3_XS, MIDDLE, "iq3_xxs" },      { "ffn_up", IQ3_XS, MIDDLE, "iq3_xxs" },
    { NULL, 0, ALWAYS, NULL },
};

static const char * const UNTOUCHED[] = { "_norm.weight", "ffn_gate_inp.weight", "ssm_conv1d", ".position_embd", ".patch_embd", NULL };

const struct ggml_type * ftype_main(int ftype) {
    for (int i = 0; MAIN_TYPES[i].type; i++) {
        if (MAIN_TYPES[i].ftype == ftype) {
            return ggml_type_named(MAIN_TYPES[i].type);
        }
    }
    return NULL;
}

static int is_embedding(const char * name) {
    return strcmp(name, "token_embd.weight") == 0 || strcmp(name, "per_layer_token_embd.weight") == 0;
}

static int is_output(const char * name) {
    return strcmp(name, "output.weight") == 0;
}

int is_attn_v(const char * name) {
    return strstr(name, "attn_v.weight") || strstr(name, "attn_qkv.weight") || strstr(name, "attn_kv_b.weight");
}

static int is_one_of(int ftype, const int * list) {
    for (; *list >= 0; list++) {
        if (*list == ftype) {
            return 1;
        }
    }
    return 0;
}

int tensor_may_change(const struct quant_params * params, const struct gguf_tensor * tensor) {
    const size_t length = strlen(tensor->name);
    if (params->only_copy || tensor->n_dims < 2 || length < 6 || strcmp(tensor->name + length - 6, "weight") != 0) {
        return 0;
    }
    for (const char * const * part = UNTOUCHED; *part; part++) {
        if (strstr(tensor->name, *part)) {
            return 0;
        }
    }
    return !(params->leave_output && is_output(tensor->name));
}

static int holds(const struct quant_state * state, enum when when, int layer, int layers) {
    const int has_matrix = state->params->matrix != NULL;
    switch (when) {
        case ALWAYS: return 1;
        case FEW_KV_HEADS: return state->heads_per_kv >= 4;
        case FIRST_TWO: return layer < 2;
        case FIRST_FOUR: return layer < 4;
        case FIRST_EIGHTH: return layer < layers / 8;
        case FIRST_SIXTEENTH: return layer < layers / 16;
        case MORE_BITS: return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
        case MIDDLE: return layer >= layers / 8 && layer < 7 * layers / 8;
        case NO_MATRIX: return !has_matrix;
        case FIRST_EIGHTH_NO_MATRIX: return layer < layers / 8 && !has_matrix;
        case FIRST_EIGHTH_MATRIX: return layer < layers / 8 && has_matrix;
    }
    return 0;
}

static const char * output_type(const struct quant_state * state, const struct gguf_tensor * tensor, const struct ggml_type * main) {
    static const int LOW[] = { IQ2_XXS, IQ2_XS, IQ3_XXS, IQ1_S, IQ2_S, IQ2_M, IQ1_M, -1 };
    if (state->params->output_type) {
        return state->params->output_type->name;
    }
    if (state->params->ftype == MXFP4_MOE || tensor->shape[0] % (uint64_t) main->block_weights) {
        return "q8_0";
    }
    if (is_one_of(state->params->ftype, LOW)) {
        return "q5_K";
    }
    return strcmp(main->name, "q8_0") == 0 ? "q8_0" : "q6_K";
}

static const char * embedding_type(int ftype, const struct ggml_type * main) {
    static const int TWO_BITS[] = { IQ2_XXS, IQ2_XS, IQ1_S, IQ1_M, -1 };
    static const int THREE_BITS[] = { IQ2_S, IQ2_M, IQ3_XXS, -1 };
    static const int FOUR_BITS[] = { TQ1_0, TQ2_0, Q2_0, -1 };
    if (is_one_of(ftype, TWO_BITS)) {
        return "q2_K";
    }
    if (is_one_of(ftype, THREE_BITS)) {
        return "iq3_s";
    }
    return is_one_of(ftype, FOUR_BITS) ? "q4_K" : main->name;
}

// Which of its kind the tensor is, counted in the order of the file.
static int place_of(struct quant_state * state, const char * name, int * count) {
    *count = state->n_layers;
    if (is_attn_v(name)) {
        *count = state->n_attn_v;
        return state->i_attn_v++;
    }
    if (strstr(name, "ffn_down")) {
        return state->i_ffn_down++;
    }
    if (strstr(name, "ffn_gate")) {
        return state->i_ffn_gate++;
    }
    return strstr(name, "ffn_up") ? state->i_ffn_up++ : 0;
}

static const char * mixed_type(struct quant_state * state, const struct gguf_tensor * tensor, const struct ggml_type * main) {
    const char * name = tensor->name;
    if (is_output(name) || (state->is_tied && is_embedding(name))) {
        return output_type(state, tensor, main);
    }
    if (state->params->ftype == MXFP4_MOE) {
        return tensor->shape[2] > 1 ? "mxfp4" : "q8_0";
    }
    if (is_embedding(name)) {
        return embedding_type(state->params->ftype, main);
    }
    int layers = 0;
    const int layer = place_of(state, name, &layers);
    for (int i = 0; MIXTURES[i].part; i++) {
        const int is_part = strcmp(MIXTURES[i].part, "attn_v") == 0 ? is_attn_v(name) : strstr(name, MIXTURES[i].part) != NULL;
        if (is_part && MIXTURES[i].ftype == state->params->ftype && holds(state, MIXTURES[i].when, layer, layers)) {
            return MIXTURES[i].type;
        }
    }
    return main->name;
}

static const struct ggml_type * fitting(struct quant_state * state, const struct gguf_tensor * tensor, const struct ggml_type * type) {
    if (tensor->shape[0] % (uint64_t) type->block_weights == 0) {
        return type;
    }
    library_log('W', "warning: %-36s - ncols %6llu not divisible by %3d (required for type %7s) ", tensor->name,
                (unsigned long long) tensor->shape[0], type->block_weights, type->name);
    state->n_fallback++;
    const struct ggml_type * wanted = type;
    for (int i = 0; FALLBACKS[i][0] && type == wanted; i++) {
        type = strcmp(FALLBACKS[i][0], wanted->name) == 0 ? ggml_type_named(FALLBACKS[i][1]) : wanted;
    }
    if (type == wanted && wanted->block_weights > 32) {
        return NULL;
    }
    if (tensor->shape[0] % (uint64_t) type->block_weights) {
        library_log('W', "(WARNING: must use F16 due to unusual shape) ");
        type = ggml_type_named("f16");
    }
    library_log('W', "-> falling back to %7s\n", type->name);
    return type;
}

static const struct ggml_type * overridden(const struct quant_params * params, const char * name) {
    for (int i = 0; i < params->n_types; i++) {
        regex_t pattern;
        const int is_found = regcomp(&pattern, params->types[i].pattern, REG_EXTENDED | REG_NOSUB) == 0 &&
                             regexec(&pattern, name, 0, NULL, 0) == 0;
        if (is_found) {
            return params->types[i].type;
        }
    }
    return NULL;
}

const struct ggml_type * tensor_type(struct quant_state * state, const struct gguf_tensor * tensor) {
    const struct quant_params * params = state->params;
    if (params->embedding_type && is_embedding(tensor->name)) {
        return params->embedding_type;
    }
    if (params->output_type && is_output(tensor->name)) {
        return params->output_type;
    }
    const struct ggml_type * main = ftype_main(params->ftype);
    if (!ggml_is_quantized(main)) {
        return main;
    }
    const struct ggml_type * chosen = overridden(params, tensor->name);
    if (chosen && chosen != main) {
        library_log('W', "llama_tensor_get_type: %-36s - applying manual override: %s -> %s\n", tensor->name, main->name, chosen->name);
    }
    if (chosen == NULL) {
        chosen = params->pure ? main : ggml_type_named(mixed_type(state, tensor, main));
    }
    return fitting(state, tensor, chosen);
}

int tensor_needs_matrix(const char * name, const struct ggml_type * type, int ftype) {
    static const char * const NEEDY[] = { "iq3_xxs", "iq2_xxs", "iq2_xs", "iq2_s", "iq1_m", "iq1_s", NULL };
    if (is_embedding(name) || is_output(name)) {
        return 0;
    }
    for (const char * const * needy = NEEDY; *needy; needy++) {
        if (strcmp(*needy, type->name) == 0) {
            return 1;
        }
    }
    return strcmp(type->name, "q2_K") == 0 && ftype == Q2_K_S;
}
