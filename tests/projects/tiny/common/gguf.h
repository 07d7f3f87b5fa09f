#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

// GGUF files in memory. The programs are short: nothing is freed.

enum gguf_type {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING, GGUF_ARRAY,
    GGUF_U64, GGUF_I64, GGUF_F64,
};

struct ggml_type {
    int number;
    const char * name;  // as the programs print it: "q4_K"
    int block_weights;
    int block_bytes;
};

// The type with this number or name (in any case), or NULL.
const struct ggml_type * ggml_type_numbered(int number);
const struct ggml_type * ggml_type_named(const char * name);
int ggml_is_quantized(const struct ggml_type * type);

struct gguf_key {
    char * name;
    uint32_t type;
    size_t size;
    unsigned char * value;  // as in the file, behind the type
};

struct gguf_tensor {
    char name[64];
    uint32_t n_dims;
    uint64_t shape[4];  // missing ones are 1
    const struct ggml_type * type;
    uint64_t offset;  // in the data section, as read
    int shard;
    const unsigned char * data;  // NULL where the file ends before
};

struct gguf {
    size_t n_keys;
    struct gguf_key * keys;
    size_t n_tensors;
    struct gguf_tensor * tensors;
    unsigned char * bytes;
    size_t n_bytes;
};

// Reads a file; says what is wrong with it as upstream does, and returns NULL. Tensors beyond the end have no data.
struct gguf * gguf_read(const char * path);
struct gguf * gguf_new(void);

const struct gguf_key * gguf_find(const struct gguf * file, const char * name);
int64_t gguf_number(const struct gguf * file, const char * name, int64_t otherwise);
const char * gguf_text(const struct gguf * file, const char * name);  // "" where there is none
size_t gguf_count(const struct gguf * file, const char * name);       // of an array
const char * gguf_text_at(const struct gguf * file, const char * name, size_t index);
char * gguf_shown(const struct gguf_key * key);     // the value for people
char * gguf_type_shown(const struct gguf_key * key);  // "arr[str,259]"

// A key that is there already moves to the end.
void gguf_set(struct gguf * file, const char * name, uint32_t type, const void * value, size_t size);
void gguf_set_u16(struct gguf * file, const char * name, uint16_t value);
void gguf_set_u32(struct gguf * file, const char * name, uint32_t value);
void gguf_set_i32(struct gguf * file, const char * name, int32_t value);
void gguf_set_text(struct gguf * file, const char * name, const char * value);
void gguf_set_texts(struct gguf * file, const char * name, const char * const * values, size_t count);
void gguf_copy_keys(struct gguf * to, const struct gguf * from);
void gguf_remove(struct gguf * file, const char * name);
struct gguf_tensor * gguf_add(
    struct gguf * file, const char * name, const struct ggml_type * type, uint32_t n_dims, const uint64_t * shape
);

uint64_t gguf_weights(const struct gguf_tensor * tensor);
uint64_t gguf_size(const struct gguf_tensor * tensor);
uint64_t gguf_padded(uint64_t size);

// Header with keys and tensors, padded: the tensors come next, in their order, each padded.
unsigned char * gguf_head(const struct gguf * file, size_t * size);
uint64_t gguf_data_size(const struct gguf * file);
