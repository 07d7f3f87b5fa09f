#pragma once

#include "imatrix-loader.h"

enum { STATISTICS = 12 };
extern const char * const STATISTICS_SCHEMA[STATISTICS];

// What imatrix.stats_schema names, of one tensor; what needs a layer before is NAN.
void tensor_statistics(const struct imatrix_entry * entry, float * found);

// Prints the tables of --show-statistics.
void print_statistics(const struct imatrix * matrix, const char * path);
