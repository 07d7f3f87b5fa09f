#include "gguf.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 32 };

uint64_t gguf_weights(const struct gguf_tensor * tensor) {
    return tensor->shape[0] * tensor->shape[1] * tensor->shape[2] * tensor->shape[3];
}

uint64_t gguf_size(const struct gguf_tensor * tensor) {
    return gguf_weights(tensor) / (uint64_t) tensor->type->block_weights * (uint64_t) tensor->type->block_bytes;
}

uint64_t gguf_padded(uint64_t size) {
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

struct gguf * gguf_new(void) {
    struct gguf * file = calloc(1, sizeof(*file));
    file->keys = calloc(4096, sizeof(*file->keys));
    file->tensors = calloc(16384, sizeof(*file->tensors));
    return file;
}

void gguf_remove(struct gguf * file, const char * name) {
    size_t kept = 0;
    for (size_t i = 0; i < file->n_keys; i++) {
        if (strcmp(file->keys[i].name, name) != 0) {
            file->keys[kept++] = file->keys[i];
        }
    }
    file->n_keys = kept;
}

void gguf_set(struct gguf * file, const char * name, uint32_t type, const void * value, size_t size) {
    gguf_remove(file, name);
    struct gguf_key * key = &file->keys[file->n_keys++];
    key->name = strcpy(malloc(strlen(name) + 1), name);
    key->type = type;
    key->size = size;
    key->value = memcpy(malloc(size + 1), value, size);
}

void gguf_set_u16(struct gguf * file, const char * name, uint16_t value) {
    gguf_set(file, name, GGUF_U16, &value, sizeof(value));
}

void gguf_set_u32(struct gguf * file, const char * name, uint32_t value) {
    gguf_set(file, name, GGUF_U32, &value, sizeof(value));
}

void gguf_set_i32(struct gguf * file, const char * name, int32_t value) {
    gguf_set(file, name, GGUF_I32, &value, sizeof(value));
}

static unsigned char * put_text(unsigned char * to, const char * text) {
    const uint64_t length = strlen(text);
    memcpy(to, &length, 8);
    memcpy(to + 8, text, (size_t) length);
    return to + 8 + length;
}

void gguf_set_text(struct gguf * file, const char * name, const char * value) {
    unsigned char * bytes = malloc(strlen(value) + 8);
    put_text(bytes, value);
    gguf_set(file, name, GGUF_STRING, bytes, strlen(value) + 8);
}

void gguf_set_texts(struct gguf * file, const char * name, const char * const * values, size_t count) {
    size_t size = 12;
    for (size_t i = 0; i < count; i++) {
        size += 8 + strlen(values[i]);
    }
    unsigned char * bytes = malloc(size);
    const uint32_t kind = GGUF_STRING;
    const uint64_t length = count;
    memcpy(bytes, &kind, 4);
    memcpy(bytes + 4, &length, 8);
    unsigned char * to = bytes + 12;
    for (size_t i = 0; i < count; i++) {
        to = put_text(to, values[i]);
    }
    gguf_set(file, name, GGUF_ARRAY, bytes, size);
}

void gguf_copy_keys(struct gguf * to, const struct gguf * from) {
    for (size_t i = 0; i < from->n_keys; i++) {
        gguf_set(to, from->keys[i].name, from->keys[i].type, from->keys[i].value, from->keys[i].size);
    }
}

struct gguf_tensor * gguf_add(
    struct gguf * file, const char * name, const struct ggml_type * type, uint32_t n_dims, const uint64_t * shape
) {
    struct gguf_tensor * tensor = &file->tensors[file->n_tensors++];
    snprintf(tensor->name, sizeof(tensor->name), "%s", name);
    tensor->type = type;
    tensor->n_dims = n_dims;
    for (uint32_t i = 0; i < 4; i++) {
        tensor->shape[i] = i < n_dims ? shape[i] : 1;
    }
    return tensor;
}

static unsigned char * put_number(unsigned char * to, uint64_t value, size_t size) {
    memcpy(to, &value, size);
    return to + size;
}

static size_t head_size(const struct gguf * file) {
    size_t size = 24;
    for (size_t i = 0; i < file->n_keys; i++) {
        size += 8 + strlen(file->keys[i].name) + 4 + file->keys[i].size;
    }
    for (size_t i = 0; i < file->n_tensors; i++) {
        size += 8 + strlen(file->tensors[i].name) + 4 + 8 * file->tensors[i].n_dims + 4 + 8;
    }
    return (size_t) gguf_padded(size);
}

unsigned char * gguf_head(const struct gguf * file, size_t * size) {
    *size = head_size(file);
    unsigned char * bytes = calloc(1, *size);
    memcpy(bytes, "GGUF\3\0\0\0", 8);
    unsigned char * to = put_number(put_number(bytes + 8, file->n_tensors, 8), file->n_keys, 8);
    for (size_t i = 0; i < file->n_keys; i++) {
        to = put_number(put_text(to, file->keys[i].name), file->keys[i].type, 4);
        memcpy(to, file->keys[i].value, file->keys[i].size);
        to += file->keys[i].size;
    }
    uint64_t offset = 0;
    for (size_t i = 0; i < file->n_tensors; i++) {
        const struct gguf_tensor * tensor = &file->tensors[i];
        to = put_number(put_text(to, tensor->name), tensor->n_dims, 4);
        for (uint32_t j = 0; j < tensor->n_dims; j++) {
            to = put_number(to, tensor->shape[j], 8);
        }
        to = put_number(put_number(to, (uint64_t) tensor->type->number, 4), offset, 8);
        offset += gguf_padded(gguf_size(tensor));
    }
    return bytes;
}

uint64_t gguf_data_size(const struct gguf * file) {
    uint64_t size = 0;
    for (size_t i = 0; i < file->n_tensors; i++) {
        size += gguf_padded(gguf_size(&file->tensors[i]));
    }
    return size;
}
