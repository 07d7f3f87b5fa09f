#include "common.h"
#include "llama.h"

#include <stdio.h>
#include <string.h>

static void print_help(const char * tool) {
    printf("usage: %s [options]\n\ngeneral:\n\n", tool);
    printf("  -h,    --help, --usage          print usage and exit\n");
    printf("         --version                show version and build info\n");
    printf("  -t,    --threads N              number of threads to use during generation (default: -1)\n");
    printf("  -c,    --ctx-size N             size of the prompt context (default: 0, 0 = loaded from model)\n");
    printf("  -fa,   --flash-attn             enable Flash Attention (default: disabled)\n");
    printf("  -ngl,  --gpu-layers N           number of layers to store in VRAM\n");
    printf("         --no-mmap                do not memory-map model (slower load but may reduce pageouts if not using mlock)\n");
    printf("  -m,    --model FNAME            model path\n\nserver:\n\n");
    printf("         --host HOST              ip address to listen (default: 127.0.0.1)\n");
    printf("         --port PORT              port to listen (default: 8080)\n");
    printf("         --api-key-file FNAME     path to file containing API keys (default: none)\n");
}

int run_tool(const char * tool, int argc, char ** argv) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--version") == 0) {
            fprintf(stderr, "version: %d (%s)\n", LLAMA_BUILD_NUMBER, LLAMA_COMMIT);
            fprintf(stderr, "built with %s for %s\n", LLAMA_COMPILER, LLAMA_BUILD_TARGET);
            return 0;
        }
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(tool);
            return 0;
        }
        fprintf(stderr, "error: unknown argument: %s\n", argv[i]);
        return 1;
    }
    return llama_max_devices() == 0;
}
