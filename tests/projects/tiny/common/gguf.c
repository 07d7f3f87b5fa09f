#include "gguf.h"

#include "log.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

// Sizes: ggml/src/ggml-common.h of llama.cpp.
static const struct ggml_type TYPES[] = {
    { 0, "f32", 1, 4 },       { 1, "f16", 1, 2 },       { 2, "q4_0", 32, 18 },    { 3, "q4_1", 32, 20 },
    { 6, "q5_0", 32, 22 },    { 7, "q5_1", 32, 24 },    { 8, "q8_0", 32, 34 },    { 10, "q2_K", 256, 84 },
    { 11, "q3_K", 256, 110 }, { 12, "q4_K", 256, 144 }, { 13, "q5_K", 256, 176 }, { 14, "q6_K", 256, 210 },
    { 16, "iq2_xxs", 256, 66 }, { 17, "iq2_xs", 256, 74 }, { 18, "iq3_xxs", 256, 98 }, { 19, "iq1_s", 256, 50 },
    { 20, "iq4_nl", 32, 18 }, { 21, "iq3_s", 256, 110 }, { 22, "iq2_s", 256, 82 }, { 23, "iq4_xs", 256, 136 },
    { 24, "i8", 1, 1 },       { 25, "i16", 1, 2 },      { 26, "i32", 1, 4 },      { 27, "i64", 1, 8 },
    { 28, "f64", 1, 8 },      { 29, "iq1_m", 256, 56 }, { 30, "bf16", 1, 2 },     { 34, "tq1_0", 256, 54 },
    { 35, "tq2_0", 256, 66 }, { 39, "mxfp4", 32, 17 },  { 40, "nvfp4", 64, 36 },  { 41, "q1_0", 128, 18 },
    { 42, "q2_0", 64, 18 },
};
enum { N_TYPES = sizeof(TYPES) / sizeof(TYPES[0]) };

static const struct { const char * name; int size; } VALUES[] = {
    { "u8", 1 },  { "i8", 1 },   { "u16", 2 }, { "i16", 2 }, { "u32", 4 }, { "i32", 4 }, { "f32", 4 },
    { "bool", 1 }, { "str", 0 }, { "arr", 0 }, { "u64", 8 }, { "i64", 8 }, { "f64", 8 },
};
enum { N_VALUES = sizeof(VALUES) / sizeof(VALUES[0]) };

const struct ggml_type * ggml_type_numbered(int number) {
    for (int i = 0; i < N_TYPES; i++) {
        if (TYPES[i].number == number) {
            return &TYPES[i];
        }
    }
    return NULL;
}

const struct ggml_type * ggml_type_named(const char * name) {
    for (int i = 0; i < N_TYPES; i++) {
        const char * a = name;
        const char * b = TYPES[i].name;
        while (*a && tolower((unsigned char) *a) == tolower((unsigned char) *b)) {
            a++;
            b++;
        }
        if (*a == '\0' && *b == '\0') {
            return &TYPES[i];
        }
    }
    return NULL;
}

int ggml_is_quantized(const struct ggml_type * type) {
    return type->block_weights > 1;
}

// ---- reading ----

struct cursor {
    const unsigned char * bytes;
    size_t size;
    size_t at;
    int is_bad;
};

static const unsigned char * take(struct cursor * cursor, uint64_t size) {
    if (cursor->is_bad || size > cursor->size - cursor->at) {
        cursor->is_bad = 1;
        return NULL;
    }
    const unsigned char * found = cursor->bytes + cursor->at;
    cursor->at += (size_t) size;
    return found;
}

static uint64_t take_number(struct cursor * cursor, int size) {
    uint64_t value = 0;
    const unsigned char * found = take(cursor, (uint64_t) size);
    if (found) {
        memcpy(&value, found, (size_t) size);
    }
    return value;
}

static const unsigned char * skip_text(struct cursor * cursor, size_t * length) {
    *length = (size_t) take_number(cursor, 8);
    if (!cursor->is_bad && *length > cursor->size - cursor->at) {
        library_log('E', "read: string length %zu exceeds remaining file size %zu bytes\n", *length, cursor->size - cursor->at);
    }
    return take(cursor, *length);
}

static char * take_text(struct cursor * cursor) {
    size_t length = 0;
    const unsigned char * found = skip_text(cursor, &length);
    char * text = found ? calloc(1, length + 1) : NULL;
    return text ? memcpy(text, found, length) : NULL;
}

static void skip_value(struct cursor * cursor, uint32_t type) {
    size_t length = 0;
    if (type == GGUF_STRING) {
        skip_text(cursor, &length);
    } else if (type == GGUF_ARRAY) {
        const uint32_t kind = (uint32_t) take_number(cursor, 4);
        const uint64_t count = take_number(cursor, 8);
        cursor->is_bad |= kind >= N_VALUES || kind == GGUF_ARRAY || count > cursor->size;
        if (!cursor->is_bad && VALUES[kind].size) {
            take(cursor, count * (uint64_t) VALUES[kind].size);
        }
        for (uint64_t i = 0; kind == GGUF_STRING && i < count && !cursor->is_bad; i++) {
            skip_text(cursor, &length);
        }
    } else if (type < N_VALUES) {
        take(cursor, (uint64_t) VALUES[type].size);
    } else {
        cursor->is_bad = 1;
    }
}

static void read_keys(struct gguf * file, struct cursor * cursor, uint64_t count) {
    file->keys = calloc(cursor->size / 12 + 64, sizeof(*file->keys));
    for (uint64_t i = 0; i < count && !cursor->is_bad; i++) {
        struct gguf_key key = { 0 };
        key.name = take_text(cursor);
        key.type = (uint32_t) take_number(cursor, 4);
        const size_t start = cursor->at;
        skip_value(cursor, key.type);
        key.size = cursor->at - start;
        key.value = (unsigned char *) cursor->bytes + start;
        if (!cursor->is_bad) {
            file->keys[file->n_keys++] = key;
        }
    }
    if (cursor->is_bad) {
        library_log('E', "gguf_init_from_reader: failed to read key-value pairs\n");
    }
}

static void read_tensor(struct gguf_tensor * tensor, struct cursor * cursor) {
    const char * name = take_text(cursor);
    tensor->n_dims = (uint32_t) take_number(cursor, 4);
    cursor->is_bad |= name == NULL || strlen(name) >= sizeof(tensor->name) || tensor->n_dims > 4;
    snprintf(tensor->name, sizeof(tensor->name), "%s", name ? name : "");
    for (uint32_t i = 0; i < 4; i++) {
        tensor->shape[i] = i < tensor->n_dims && !cursor->is_bad ? take_number(cursor, 8) : 1;
    }
    tensor->type = ggml_type_numbered((int) take_number(cursor, 4));
    tensor->offset = take_number(cursor, 8);
    cursor->is_bad |= tensor->type == NULL;
    if (!cursor->is_bad && tensor->shape[0] % (uint64_t) tensor->type->block_weights) {
        library_log('E', "gguf_init_from_reader: tensor '%s' of type %d (%s) has %llu elements per row, not a multiple of "
                         "block size (%d)\n", tensor->name, tensor->type->number, tensor->type->name,
                    (unsigned long long) tensor->shape[0], tensor->type->block_weights);
        cursor->is_bad = 1;
    }
}

static void read_tensors(struct gguf * file, struct cursor * cursor, uint64_t count) {
    file->tensors = calloc(cursor->size / 24 + 1, sizeof(*file->tensors));
    for (uint64_t i = 0; i < count && !cursor->is_bad; i++) {
        read_tensor(&file->tensors[file->n_tensors++], cursor);
    }
    if (cursor->is_bad) {
        library_log('E', "gguf_init_from_reader: failed to read tensor info\n");
        return;
    }
    const uint64_t start = gguf_padded(cursor->at);
    for (size_t i = 0; i < file->n_tensors; i++) {
        struct gguf_tensor * tensor = &file->tensors[i];
        const uint64_t end = start + tensor->offset + gguf_size(tensor);
        tensor->data = end <= cursor->size ? cursor->bytes + start + tensor->offset : NULL;
    }
}

static unsigned char * read_file(const char * path, size_t * size) {
    FILE * in = fopen(path, "rb");
    if (in == NULL) {
        library_log('E', "gguf_init_from_file: failed to open GGUF file '%s' (%s)\n", path, strerror(errno));
        return NULL;
    }
    fseek(in, 0, SEEK_END);
    const long end = ftell(in);
    rewind(in);
    unsigned char * bytes = malloc((size_t) (end > 0 ? end : 0) + 1);
    *size = end > 0 ? fread(bytes, 1, (size_t) end, in) : 0;
    fclose(in);
    return bytes;
}

static int is_gguf(const struct cursor * cursor) {
    char magic[5] = "";
    if (cursor->size < 4) {
        library_log('E', "gguf_init_from_reader: failed to read magic\n");
        return 0;
    }
    for (int i = 0; i < 4; i++) {
        magic[i] = (char) (isprint(cursor->bytes[i]) ? cursor->bytes[i] : '?');
    }
    if (memcmp(cursor->bytes, "GGUF", 4) != 0) {
        library_log('E', "gguf_init_from_reader: invalid magic characters: '%s', expected 'GGUF'\n", magic);
        return 0;
    }
    return 1;
}

struct gguf * gguf_read(const char * path) {
    struct cursor cursor = { 0 };
    unsigned char * bytes = read_file(path, &cursor.size);
    cursor.bytes = bytes;
    if (bytes == NULL || !is_gguf(&cursor)) {
        return NULL;
    }
    struct gguf * file = calloc(1, sizeof(*file));
    file->bytes = bytes;
    file->n_bytes = cursor.size;
    cursor.at = 4;
    const uint32_t version = (uint32_t) take_number(&cursor, 4);
    const uint64_t n_tensors = take_number(&cursor, 8);
    const uint64_t n_keys = take_number(&cursor, 8);
    if (cursor.is_bad || version < 2 || version > 3) {
        library_log('E', "gguf_init_from_reader: failed to read header\n");
        return NULL;
    }
    read_keys(file, &cursor, n_keys);
    if (!cursor.is_bad) {
        read_tensors(file, &cursor, n_tensors);
    }
    return cursor.is_bad ? NULL : file;
}

// ---- keys ----

const struct gguf_key * gguf_find(const struct gguf * file, const char * name) {
    for (size_t i = 0; i < file->n_keys; i++) {
        if (strcmp(file->keys[i].name, name) == 0) {
            return &file->keys[i];
        }
    }
    return NULL;
}

int64_t gguf_number(const struct gguf * file, const char * name, int64_t otherwise) {
    const struct gguf_key * key = gguf_find(file, name);
    if (key == NULL || key->type >= N_VALUES || VALUES[key->type].size == 0 || key->type == GGUF_F32 || key->type == GGUF_F64) {
        return otherwise;
    }
    int64_t value = 0;
    memcpy(&value, key->value, key->size);
    return key->type == GGUF_I32 ? (int32_t) value : value;
}

static char * text_of(const unsigned char * value) {
    uint64_t length = 0;
    memcpy(&length, value, 8);
    char * text = calloc(1, (size_t) length + 1);
    memcpy(text, value + 8, (size_t) length);
    return text;
}

const char * gguf_text(const struct gguf * file, const char * name) {
    const struct gguf_key * key = gguf_find(file, name);
    return key && key->type == GGUF_STRING ? text_of(key->value) : "";
}

static size_t count_of(const struct gguf_key * key) {
    uint64_t count = 0;
    memcpy(&count, key->value + 4, 8);
    return (size_t) count;
}

static uint32_t kind_of(const struct gguf_key * key) {
    uint32_t kind = 0;
    memcpy(&kind, key->value, 4);
    return kind;
}

size_t gguf_count(const struct gguf * file, const char * name) {
    const struct gguf_key * key = gguf_find(file, name);
    return key && key->type == GGUF_ARRAY ? count_of(key) : 0;
}

const char * gguf_text_at(const struct gguf * file, const char * name, size_t index) {
    const struct gguf_key * key = gguf_find(file, name);
    if (key == NULL || key->type != GGUF_ARRAY || kind_of(key) != GGUF_STRING || index >= count_of(key)) {
        return "";
    }
    const unsigned char * value = key->value + 12;
    for (size_t i = 0; i < index; i++) {
        uint64_t length = 0;
        memcpy(&length, value, 8);
        value += 8 + length;
    }
    return text_of(value);
}

static void show_number(char * shown, size_t size, uint32_t type, const unsigned char * value) {
    int64_t whole = 0;
    float single = 0;
    double twice = 0;
    memcpy(&whole, value, (size_t) VALUES[type].size);
    switch (type) {
        case GGUF_F32: memcpy(&single, value, 4); snprintf(shown, size, "%f", (double) single); break;
        case GGUF_F64: memcpy(&twice, value, 8); snprintf(shown, size, "%f", twice); break;
        case GGUF_BOOL: snprintf(shown, size, "%s", whole ? "true" : "false"); break;
        case GGUF_I8: snprintf(shown, size, "%d", (int8_t) whole); break;
        case GGUF_I16: snprintf(shown, size, "%d", (int16_t) whole); break;
        case GGUF_I32: snprintf(shown, size, "%d", (int32_t) whole); break;
        default: snprintf(shown, size, "%lld", (long long) whole); break;
    }
}

static void append(char * shown, const char * more) {
    strncat(shown, more, 255 - strlen(shown));
}

static void show_array(char * shown, const struct gguf_key * key) {
    const uint32_t kind = kind_of(key);
    const unsigned char * value = key->value + 12;
    append(shown, "[");
    for (size_t i = 0; i < count_of(key) && strlen(shown) < 64; i++) {
        char one[64];
        append(shown, i ? ", " : "");
        if (kind == GGUF_STRING) {
            char * text = text_of(value);
            append(shown, "\"");
            append(shown, text);
            append(shown, "\"");
            value += 8 + strlen(text);
        } else {
            show_number(one, sizeof(one), kind, value);
            append(shown, one);
            value += VALUES[kind].size;
        }
    }
    append(shown, "]");
}

char * gguf_shown(const struct gguf_key * key) {
    char * shown = calloc(2, 256);
    if (key->type == GGUF_STRING) {
        append(shown, text_of(key->value));
    } else if (key->type == GGUF_ARRAY) {
        show_array(shown, key);
    } else {
        show_number(shown, 256, key->type, key->value);
    }
    if (strlen(shown) > 40) {
        strcpy(shown + 37, "...");
    }
    char * whole = calloc(2, 64);
    for (size_t i = 0, j = 0; shown[i]; i++) {
        if (shown[i] == '\n') {
            whole[j++] = '\\';
        }
        whole[j++] = shown[i] == '\n' ? 'n' : shown[i];
    }
    return whole;
}

char * gguf_type_shown(const struct gguf_key * key) {
    char * shown = calloc(1, 64);
    if (key->type == GGUF_ARRAY) {
        snprintf(shown, 64, "arr[%s,%zu]", VALUES[kind_of(key)].name, count_of(key));
    } else {
        snprintf(shown, 64, "%s", VALUES[key->type].name);
    }
    return shown;
}
