#pragma once

#include <stddef.h>

extern const int LLAMA_BUILD_NUMBER;
extern const char * const LLAMA_COMMIT;
extern const char * const LLAMA_COMPILER;
extern const char * const LLAMA_BUILD_TARGET;

struct option_row {
    const char * names;  // "-c, --ctx-size", the short one first
    const char * value;  // the value's name in --help, or NULL for a switch
    const char * help;   // lines, separated by \n
    const char * env;    // the variable that stands in for the flag, or NULL
};

// Prints what --version prints, to stderr as the tools do.
void print_version(void);

// What a test wants changed: an environment variable TINY_X, or an entry "/TINY_X=value" of PATH, which comes through
// where other variables do not.
const char * tiny_setting(const char * name);

// Prints the devices that the setting TINY_DEVICES names.
void print_devices(void);

// Prints rows in llama.cpp's layout: flags from column 0, help from column 40.
void print_options(const char * title, const struct option_row * rows);

// Reads argv by the rows (each array ends with a NULL name) and calls found for each flag and each variable; answers the
// flags that end a program (--help, --version, --list-devices) and errors itself, then exits.
typedef void (*found_flag)(const char * name, const char * value);
void parse_options(int argc, char ** argv, const struct option_row * own_rows, found_flag found);

// For use in found: says why the flag that was found is refused, and exits; reads what a flag names, or refuses it.
void fail_argument(const char * why);
char * read_text_file(const char * path, size_t * size);

// What llama-server and the unified binary share.
int llama_server(int argc, char ** argv);
int llama_quantize(int argc, char ** argv);
