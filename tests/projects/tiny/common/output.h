#pragma once

#include <stdint.h>
#include <stdio.h>

// Files that are written in small pieces, over at least TINY_SLOW_S seconds when that is set.
struct output {
    FILE * file;
    uint64_t whole_bytes;  // of all files of this run, so that together they take that long
    int is_bad;
};

int output_open(struct output * output, const char * path);  // 0 where it cannot be made
void output_write(struct output * output, const void * data, uint64_t size);
void output_zeros(struct output * output, uint64_t size);
void output_rewrite_start(struct output * output, const void * data, uint64_t size);
int output_close(struct output * output);  // whether everything was written

// Sleeps for a share of TINY_SLOW_S.
void pace(double share);
