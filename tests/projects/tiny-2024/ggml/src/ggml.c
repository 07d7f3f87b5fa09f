#include "ggml.h"

int ggml_cpu_has_avx(void) {
    return 1;
}
