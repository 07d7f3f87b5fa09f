#pragma once

#include "model.h"

#include <stdio.h>

enum { REPEATS = 256 };

struct test {
    const char * path;
    const struct model * model;
    const char * type_k;
    const char * type_v;
    int batch, ubatch, threads, layers, flash, depth, prompt, gen;
    int repeats;
    double samples_ns[REPEATS];
};

// Formats are "csv", "json", "jsonl", "md", "sql", and "none", which prints nothing.
void print_head(FILE * to, const char * format);
void print_test(FILE * to, const char * format, const struct test * test, int is_first);
void print_foot(FILE * to, const char * format);
