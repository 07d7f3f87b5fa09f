#pragma once

#include "gguf.h"

// A model: one file, or all its shards.
struct model {
    const char * path;
    struct gguf * head;  // the first file: it has the keys
    int n_shards;
    size_t n_tensors;
    struct gguf_tensor ** tensors;  // by layer, then by name
    uint64_t n_weights;
    uint64_t n_bytes;
    const char * arch;
    int n_layers;
    int n_vocab;
    int n_ctx_train;
    int file_type;
    // What the stand-in of a language model is made of.
    uint64_t identity;  // the same for a model and its quants
    uint64_t variant;   // of this quant
    double error;       // grows as bits per weight shrink
};

// Reads a model as llama.cpp's loader does, and tells of it. Returns why it cannot be used, or NULL.
const char * model_read(struct model * model, const char * path);

// The same for programs that run models: says itself why not, in the lines of upstream, and returns 0 then.
int model_load(struct model * model, const char * path);

// "%s-%05d-of-%05d.gguf", counted from 1; and whether a path is that, and with which beginning.
void split_path(char * path, size_t size, const char * prefix, int number, int count);
int split_prefix(char * prefix, size_t size, const char * path, int number, int count);

// Signs of the first 32 weights; what is quantized carries those of its source at the start of each block.
uint32_t tensor_mark(const struct gguf_tensor * tensor);

uint64_t mixed(uint64_t value);
uint64_t hash_bytes(const void * data, size_t size, uint64_t seed);

// Four bytes of text are a token.
int * model_tokens(const struct model * model, const char * text, size_t size, size_t * count);

// The logits behind `token`, when `next` follows it in the text.
void model_logits(const struct model * model, int token, int next, float * logits);
