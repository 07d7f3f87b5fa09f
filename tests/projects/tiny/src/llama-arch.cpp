// Not compiled: the table that says which architectures the loader knows.
#include "llama-arch.h"

static const std::map<llm_arch, const char *> LLM_ARCH_NAMES = {
    { LLM_ARCH_LLAMA,            "llama"            },
    { LLM_ARCH_QWEN2,            "qwen2"            },
    { LLM_ARCH_GEMMA3,           "gemma3"           },
    { LLM_ARCH_UNKNOWN,          "(unknown)"        },
};
