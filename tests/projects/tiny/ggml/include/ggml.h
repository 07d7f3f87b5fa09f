#pragma once

const char * ggml_version(void);
int ggml_cpu_lanes(void);
int ggml_backend_count(void);
