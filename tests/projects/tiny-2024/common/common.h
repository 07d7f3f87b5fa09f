#pragma once

extern const int LLAMA_BUILD_NUMBER;
extern const char * const LLAMA_COMMIT;
extern const char * const LLAMA_COMPILER;
extern const char * const LLAMA_BUILD_TARGET;

// Answers --version and --help, refuses every other argument; the exit status.
int run_tool(const char * tool, int argc, char ** argv);
