#include "common.h"
#include "llama.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char ** argv) {
    const char * command = argc > 1 ? argv[1] : "help";
    if (strcmp(command, "serve") == 0 || strcmp(command, "server") == 0) {
        return llama_server(argc - 1, argv + 1);
    }
    if (strcmp(command, "quantize") == 0) {
        return llama_quantize(argc - 1, argv + 1);
    }
    if (strcmp(command, "version") == 0 || strcmp(command, "--version") == 0) {
        printf("version: %s (build %d, commit %s)\n", llama_version(), LLAMA_BUILD_NUMBER, LLAMA_COMMIT);
        printf("built with %s for %s\n", LLAMA_COMPILER, LLAMA_BUILD_TARGET);
        return 0;
    }
    printf("usage: llama <command> [args]\n\ncommands: serve quantize version help\n");
    return strcmp(command, "help") != 0;
}
