#include "llama.h"

#include "ggml.h"

int llama_max_devices(void) {
    return ggml_cpu_has_avx();
}
