#include "ggml.h"

const char * tiny_cpu_name(void) {
    return TINY_CPU_NAME;
}

int ggml_cpu_lanes(void) {
    return ggml_version()[0] == '0' ? 8 : 4;
}
