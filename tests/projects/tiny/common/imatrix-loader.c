#include "imatrix-loader.h"

#include "gguf.h"
#include "log.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

const struct imatrix_entry * imatrix_find(const struct imatrix * matrix, const char * name) {
    for (size_t i = 0; i < matrix->n_entries; i++) {
        if (strcmp(matrix->entries[i].name, name) == 0) {
            return &matrix->entries[i];
        }
    }
    return NULL;
}

struct imatrix_entry * imatrix_entry(struct imatrix * matrix, const char * name, size_t n_values, size_t n_counts) {
    size_t place = 0;
    while (place < matrix->n_entries && strcmp(matrix->entries[place].name, name) < 0) {
        place++;
    }
    if (place < matrix->n_entries && strcmp(matrix->entries[place].name, name) == 0) {
        struct imatrix_entry * found = &matrix->entries[place];
        return found->n_values == n_values && found->n_counts == n_counts ? found : NULL;
    }
    matrix->entries = realloc(matrix->entries, (matrix->n_entries + 1) * sizeof(*matrix->entries));
    for (size_t i = matrix->n_entries; i > place; i--) {
        matrix->entries[i] = matrix->entries[i - 1];
    }
    matrix->n_entries++;
    struct imatrix_entry * entry = &matrix->entries[place];
    snprintf(entry->name, sizeof(entry->name), "%s", name);
    entry->n_values = n_values;
    entry->n_counts = n_counts;
    entry->squares = calloc(n_values + 1, sizeof(*entry->squares));
    entry->sums = calloc(n_values + 1, sizeof(*entry->sums));
    entry->counts = calloc(n_counts + 1, sizeof(*entry->counts));
    return entry;
}

void imatrix_add_dataset(struct imatrix * matrix, const char * name) {
    matrix->datasets = realloc(matrix->datasets, (matrix->n_datasets + 1) * sizeof(*matrix->datasets));
    matrix->datasets[matrix->n_datasets++] = name;
}

static int take(FILE * in, void * to, size_t size) {
    return fread(to, 1, size, in) == size;
}

static int read_legacy_entry(struct imatrix * matrix, FILE * in, int number, const char * path) {
    int32_t length = 0;
    int32_t n_calls = 0;
    int32_t n_values = 0;
    char name[64] = "";
    if (!take(in, &length, 4) || length < 0 || length >= (int32_t) sizeof(name) || !take(in, name, (size_t) length)) {
        library_log('E', "common_imatrix_load_legacy: failed reading name for entry %d from %s\n", number + 1, path);
        return 0;
    }
    if (!take(in, &n_calls, 4) || !take(in, &n_values, 4) || n_values < 1 || n_values > 1 << 24) {
        library_log('E', "common_imatrix_load_legacy: failed reading number of values for entry %d\n", number);
        return 0;
    }
    struct imatrix_entry * entry = imatrix_entry(matrix, name, (size_t) n_values, 1);
    entry->counts[0] = n_calls;
    entry->sums = NULL;
    if (!take(in, entry->squares, (size_t) n_values * sizeof(float))) {
        library_log('E', "common_imatrix_load_legacy: failed reading data for entry %d\n", number);
        return 0;
    }
    return 1;
}

static int read_legacy(struct imatrix * matrix, const char * path) {
    FILE * in = fopen(path, "rb");
    int32_t n_entries = 0;
    int32_t n_calls = 0;
    int32_t length = 0;
    if (in == NULL) {
        library_log('E', "common_imatrix_load_legacy: failed to open %s\n", path);
        return 0;
    }
    if (!take(in, &n_entries, 4) || n_entries < 1) {
        library_log('E', "common_imatrix_load_legacy: no data in file %s\n", path);
        return 0;
    }
    for (int i = 0; i < n_entries; i++) {
        if (!read_legacy_entry(matrix, in, i, path)) {
            return 0;
        }
    }
    if (take(in, &n_calls, 4) && take(in, &length, 4) && length > 0 && length < 4096) {
        char * name = calloc(1, (size_t) length + 1);
        if (take(in, name, (size_t) length)) {
            imatrix_add_dataset(matrix, name);
        }
    }
    fclose(in);
    matrix->n_chunks = n_calls;
    matrix->is_legacy = 1;
    return 1;
}

static const struct gguf_tensor * find_part(const struct gguf * file, const char * name, const char * part) {
    char wanted[128];
    snprintf(wanted, sizeof(wanted), "%s.%s", name, part);
    for (size_t i = 0; i < file->n_tensors; i++) {
        if (strcmp(file->tensors[i].name, wanted) == 0) {
            return &file->tensors[i];
        }
    }
    return NULL;
}

static int read_entry(struct imatrix * matrix, const struct gguf * file, const char * name) {
    const struct gguf_tensor * squares = find_part(file, name, "in_sum2");
    const struct gguf_tensor * sums = find_part(file, name, "in_sum");
    const struct gguf_tensor * counts = find_part(file, name, "counts");
    if (squares == NULL || counts == NULL || squares->data == NULL || counts->data == NULL) {
        library_log('E', "common_imatrix_load: mismatched sums and counts for %s\n", name);
        return 0;
    }
    if (squares->type->number != 0 || counts->type->number != 0) {
        library_log('E', "common_imatrix_load: sums and counts for %s must be F32\n", name);
        return 0;
    }
    struct imatrix_entry * entry = imatrix_entry(matrix, name, (size_t) gguf_weights(squares), (size_t) gguf_weights(counts));
    memcpy(entry->squares, squares->data, entry->n_values * sizeof(float));
    if (sums && sums->data && gguf_weights(sums) == entry->n_values) {
        memcpy(entry->sums, sums->data, entry->n_values * sizeof(float));
    } else {
        entry->sums = NULL;
    }
    for (size_t i = 0; i < entry->n_counts; i++) {
        float count = 0;
        memcpy(&count, counts->data + 4 * i, 4);
        entry->counts[i] = (double) count;
    }
    return 1;
}

int imatrix_read(struct imatrix * matrix, const char * path) {
    memset(matrix, 0, sizeof(*matrix));
    const struct gguf * file = gguf_read(path);
    if (file == NULL) {
        return read_legacy(matrix, path);
    }
    if (file->n_tensors < 1) {
        library_log('E', "common_imatrix_load: no data in file %s\n", path);
        return 0;
    }
    matrix->has_metadata = gguf_find(file, "imatrix.datasets") && gguf_find(file, "imatrix.chunk_count") &&
                           gguf_find(file, "imatrix.chunk_size");
    matrix->n_chunks = (int) gguf_number(file, "imatrix.chunk_count", 0);
    matrix->chunk_size = (int) gguf_number(file, "imatrix.chunk_size", 0);
    for (size_t i = 0; i < gguf_count(file, "imatrix.datasets"); i++) {
        imatrix_add_dataset(matrix, gguf_text_at(file, "imatrix.datasets", i));
    }
    for (size_t i = 0; i < file->n_tensors; i++) {
        char name[64];
        snprintf(name, sizeof(name), "%s", file->tensors[i].name);
        char * part = strrchr(name, '.');
        if (part && (strcmp(part, ".in_sum2") == 0 || strcmp(part, ".counts") == 0)) {
            *part = '\0';
            if (imatrix_find(matrix, name) == NULL && !read_entry(matrix, file, name)) {
                return 0;
            }
        }
    }
    return 1;
}
