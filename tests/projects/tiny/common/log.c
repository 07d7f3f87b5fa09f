#include "log.h"

#include "common.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int has_prefix = 0;
static int is_lost = 0;
static char lowest_level = 'I';
static struct timespec started;

void log_with_prefix(void) {
    has_prefix = 1;
    lowest_level = 'W';
    clock_gettime(CLOCK_MONOTONIC, &started);
}

void log_errors_only(void) {
    lowest_level = 'E';
}

static void print(char level, const char * format, va_list values) {
    if (is_lost) {
        return;
    }
    if (has_prefix) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        const long us = (now.tv_sec - started.tv_sec) * 1000000L + (now.tv_nsec - started.tv_nsec) / 1000;
        fprintf(stderr, "%d.%02d.%03d.%03d %c ", (int) (us / 60000000), (int) (us / 1000000 % 60),
                (int) (us / 1000 % 1000), (int) (us % 1000), level);
    }
    vfprintf(stderr, format, values);
    fflush(stderr);
}

void library_log(char level, const char * format, ...) {
    if ((lowest_level == 'E' && level != 'E') || (lowest_level == 'W' && level == 'I')) {
        return;
    }
    va_list values;
    va_start(values, format);
    print(level, format, values);
    va_end(values);
}

void program_log(char level, const char * format, ...) {
    va_list values;
    va_start(values, format);
    print(level, format, values);
    va_end(values);
}

void program_print(const char * format, ...) {
    if (is_lost) {
        return;
    }
    va_list values;
    va_start(values, format);
    vprintf(format, values);
    va_end(values);
    fflush(stdout);
}

void log_may_lose_the_rest(void) {
    const char * marker = tiny_setting("TINY_LOSE_LOG");
    const int made = marker && *marker ? open(marker, O_CREAT | O_EXCL | O_WRONLY, 0600) : -1;
    if (made >= 0) {
        close(made);
        is_lost = 1;
    }
}
