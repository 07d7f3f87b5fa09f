#include "ggml.h"

int ggml_backend_count(void) {
#ifdef GGML_USE_CPU
    return ggml_cpu_lanes() > 0;
#else
    return ggml_version()[0] == '0';
#endif
}
