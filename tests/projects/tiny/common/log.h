#pragma once

#include <stdarg.h>

// What the programs say. llama-imatrix and llama-perplexity begin lines on stderr with a time and a letter
// ("0.00.012.345 I "), keep back what the library tells of itself (level 'I'), and print results bare on stdout; the
// others print all of it bare.
void log_with_prefix(void);
void log_errors_only(void);

void library_log(char level, const char * format, ...);  // to stderr; level: I W E
void program_log(char level, const char * format, ...);  // to stderr
void program_print(const char * format, ...);            // to stdout

// Upstream's llama-perplexity b11434 prints from a thread that may not come to its last lines before the end. With
// TINY_LOSE_LOG naming a file that is not there yet, this makes the file, and nothing more is printed.
void log_may_lose_the_rest(void);
