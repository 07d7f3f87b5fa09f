#pragma once

int ggml_cpu_has_avx(void);
