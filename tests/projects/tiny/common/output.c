#include "output.h"

#include "common.h"

#include <stdlib.h>
#include <time.h>

enum { PIECES = 200, LARGEST_PIECE = 4096 };

static double slow_s(void) {
    const char * text = tiny_setting("TINY_SLOW_S");
    const double seconds = text ? atof(text) : 0.0;
    return seconds > 0.0 ? seconds : 0.0;
}

void pace(double share) {
    const double seconds = slow_s() * share;
    if (seconds > 0.0) {
        struct timespec wanted = { (time_t) seconds, (long) ((seconds - (double) (time_t) seconds) * 1e9) };
        nanosleep(&wanted, NULL);
    }
}

int output_open(struct output * output, const char * path) {
    output->file = fopen(path, "wb");
    output->is_bad = output->file == NULL;
    return !output->is_bad;
}

void output_write(struct output * output, const void * data, uint64_t size) {
    const int is_slow = output->whole_bytes > 0 && slow_s() > 0.0;
    const uint64_t slice = output->whole_bytes / PIECES + 1;
    const uint64_t piece = !is_slow ? size : slice < LARGEST_PIECE ? slice : LARGEST_PIECE;
    for (uint64_t done = 0; done < size && !output->is_bad;) {
        const uint64_t now = size - done < piece ? size - done : piece;
        output->is_bad = fwrite((const char *) data + done, 1, (size_t) now, output->file) != now || fflush(output->file);
        if (is_slow) {
            pace((double) now / (double) output->whole_bytes);
        }
        done += now;
    }
}

void output_zeros(struct output * output, uint64_t size) {
    void * zeros = calloc(1, (size_t) size + 1);
    output_write(output, zeros, size);
    free(zeros);
}

void output_rewrite_start(struct output * output, const void * data, uint64_t size) {
    if (!output->is_bad) {
        output->is_bad = fseek(output->file, 0, SEEK_SET) || fwrite(data, 1, (size_t) size, output->file) != size;
    }
}

int output_close(struct output * output) {
    const int is_closed = output->file && fclose(output->file) == 0;
    output->file = NULL;
    return is_closed && !output->is_bad;
}
