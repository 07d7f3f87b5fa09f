#include "common.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char ** argv) {
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        return run_tool("llama-quantize", argc, argv);
    }
    printf("usage: %s [--help] [--allow-requantize] model-f32.gguf [model-quant.gguf] type [nthreads]\n\n", argv[0]);
    printf("Allowed quantization types:\n");
    printf("  %2d  or  %-7s : %s\n", 2, "Q4_0", " 4.34G, +0.4685 ppl @ Llama-3-8B");
    printf("  %2d  or  %-7s : %s\n", 15, "Q4_K_M", " 4.58G, +0.1754 ppl @ Llama-3-8B");
    printf("  %2d  or  %-7s : %s\n", 7, "Q8_0", " 7.96G, +0.0026 ppl @ Llama-3-8B");
    printf("  %2d  or  %-7s : %s\n", 33, "Q4_0_4_4", " 4.34G, +0.4685 ppl @ Llama-3-8B");
    printf("  %2d  or  %-7s : %s\n", 1, "F16", "14.00G, +0.0020 ppl @ Mistral-7B");
    printf("          %-7s : %s\n", "COPY", "only copy tensors, no quantizing");
    return 1;
}
