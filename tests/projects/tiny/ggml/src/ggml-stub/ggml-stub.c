#include "ggml.h"

const char * TINY_INIT(void);

const char * TINY_INIT(void) {
    return ggml_version()[0] == '0' ? TINY_BACKEND : "";
}
