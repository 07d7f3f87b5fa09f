#pragma once

#include <stddef.h>

struct imatrix_entry {
    char name[64];
    size_t n_values;
    size_t n_counts;
    float * squares;  // sums
    float * sums;     // NULL where there are none
    double * counts;
};

struct imatrix {
    size_t n_entries;
    struct imatrix_entry * entries;  // by name
    size_t n_datasets;
    const char ** datasets;
    int n_chunks;
    int chunk_size;
    int is_legacy;
    int has_metadata;
};

// Reads an importance matrix, GGUF or the older .dat; says what is wrong and returns 0.
int imatrix_read(struct imatrix * matrix, const char * path);

// The entry with this name, made with n_values zeros if it is new; NULL where it has another size.
struct imatrix_entry * imatrix_entry(struct imatrix * matrix, const char * name, size_t n_values, size_t n_counts);
const struct imatrix_entry * imatrix_find(const struct imatrix * matrix, const char * name);
void imatrix_add_dataset(struct imatrix * matrix, const char * name);
