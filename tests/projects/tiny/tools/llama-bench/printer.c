// What llama-bench prints of its tests, in every format.
#include "bench.h"
#include "common.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FIELDS = 48 };

struct field {
    const char * name;
    char kind;  // 's'tring, 'i'nteger, 'b'ool, 'f'loat
    char value[4200];
};

static const char * ftype_name(int ftype) {
    static const char * const NAMES[] = {
        [0] = "all F32", [1] = "F16", [2] = "Q4_0", [3] = "Q4_1", [7] = "Q8_0", [8] = "Q5_0", [9] = "Q5_1",
        [10] = "Q2_K - Medium", [11] = "Q3_K - Small", [12] = "Q3_K - Medium", [13] = "Q3_K - Large", [14] = "Q4_K - Small",
        [15] = "Q4_K - Medium", [16] = "Q5_K - Small", [17] = "Q5_K - Medium", [18] = "Q6_K", [19] = "IQ2_XXS - 2.0625 bpw",
        [20] = "IQ2_XS - 2.3125 bpw", [21] = "Q2_K - Small", [22] = "IQ3_XS - 3.3 bpw", [23] = "IQ3_XXS - 3.0625 bpw",
        [24] = "IQ1_S - 1.5625 bpw", [25] = "IQ4_NL - 4.5 bpw", [26] = "IQ3_S - 3.4375 bpw", [27] = "IQ3_S mix - 3.66 bpw",
        [28] = "IQ2_S - 2.5 bpw", [29] = "IQ2_M - 2.7 bpw", [30] = "IQ4_XS - 4.25 bpw", [31] = "IQ1_M - 1.75 bpw",
        [32] = "BF16", [36] = "TQ1_0 - 1.69 bpw ternary", [37] = "TQ2_0 - 2.06 bpw ternary", [38] = "MXFP4 MoE",
        [40] = "Q1_0", [41] = "Q2_0",
    };
    const int count = (int) (sizeof(NAMES) / sizeof(NAMES[0]));
    return ftype >= 0 && ftype < count && NAMES[ftype] ? NAMES[ftype] : "(guessed) unknown, may not work";
}

static void statistics(const struct test * test, double tokens, double * mean, double * deviation) {
    double sum = 0;
    double squares = 0;
    for (int i = 0; i < test->repeats; i++) {
        const double value = tokens > 0 ? 1e9 * tokens / test->samples_ns[i] : test->samples_ns[i];
        sum += value;
        squares += value * value;
    }
    *mean = sum / test->repeats;
    const double rest = squares - *mean * *mean * test->repeats;
    *deviation = test->repeats > 1 && rest > 0 ? sqrt(rest / (test->repeats - 1)) : 0;
}

static const char * backend(void) {
    const char * devices = tiny_setting("TINY_DEVICES");
    static char name[64];
    snprintf(name, sizeof(name), "%.*s", devices ? (int) strcspn(devices, ",0123456789") : 0, devices ? devices : "");
    return *name ? name : "CPU";
}

static int fields_of(const struct test * test, struct field * fields) {
    int count = 0;
    double ns[2];
    double ts[2];
    char now[32];
    const time_t seconds = time(NULL);
    strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%SZ", gmtime(&seconds));
    statistics(test, 0, &ns[0], &ns[1]);
    statistics(test, test->prompt + test->gen, &ts[0], &ts[1]);
#define ADD(name_, kind_, ...) \
    do { \
        fields[count].name = name_; \
        fields[count].kind = kind_; \
        snprintf(fields[count].value, sizeof(fields[count].value), __VA_ARGS__); \
        count++; \
    } while (0)
    ADD("build_commit", 's', "%s", LLAMA_COMMIT);
    ADD("build_number", 'i', "%d", LLAMA_BUILD_NUMBER);
    ADD("cpu_info", 's', "Tiny CPU");
    ADD("gpu_info", 's', "%s", strcmp(backend(), "CPU") ? "Tiny device" : "");
    ADD("backends", 's', "%s", backend());
    ADD("model_filename", 's', "%s", test->path);
    ADD("model_type", 's', "%s ?B %s", test->model->arch, ftype_name(test->model->file_type));
    ADD("model_size", 'i', "%llu", (unsigned long long) test->model->n_bytes);
    ADD("model_n_params", 'i', "%llu", (unsigned long long) test->model->n_weights);
    ADD("n_batch", 'i', "%d", test->batch);
    ADD("n_ubatch", 'i', "%d", test->ubatch);
    ADD("n_threads", 'i', "%d", test->threads);
    ADD("cpu_mask", 's', "0x0");
    ADD("cpu_strict", 'b', "0");
    ADD("poll", 'i', "50");
    ADD("type_k", 's', "%s", test->type_k);
    ADD("type_v", 's', "%s", test->type_v);
    ADD("n_gpu_layers", 'i', "%d", test->layers);
    ADD("n_cpu_moe", 'i', "0");
    ADD("split_mode", 's', "layer");
    ADD("main_gpu", 'i', "0");
    ADD("no_kv_offload", 'b', "0");
    ADD("flash_attn", 'i', "%d", test->flash);
    ADD("devices", 's', "auto");
    ADD("tensor_split", 's', "0.00");
    ADD("tensor_buft_overrides", 's', "none");
    ADD("load_mode", 's', "auto");
    ADD("lazy_mode", 's', "auto");
    ADD("embeddings", 'b', "0");
    ADD("no_op_offload", 'i', "0");
    ADD("no_host", 'b', "0");
    ADD("repack", 'b', "1");
    ADD("fit_target", 'i', "0");
    ADD("fit_min_ctx", 'i', "0");
    ADD("n_prompt", 'i', "%d", test->prompt);
    ADD("n_gen", 'i', "%d", test->gen);
    ADD("n_depth", 'i', "%d", test->depth);
    ADD("test_time", 's', "%s", now);
    ADD("avg_ns", 'i', "%.0f", ns[0]);
    ADD("stddev_ns", 'i', "%.0f", ns[1]);
    ADD("avg_ts", 'f', "%f", ts[0]);
    ADD("stddev_ts", 'f', "%f", ts[1]);
#undef ADD
    return count;
}

// ---- formats ----

static void print_json_value(FILE * to, const struct field * field) {
    if (field->kind == 's') {
        fputc('"', to);
        for (const char * c = field->value; *c; c++) {
            if (*c == '"' || *c == '\\') {
                fputc('\\', to);
            }
            fputc(*c, to);
        }
        fputc('"', to);
    } else if (field->kind == 'b') {
        fputs(*field->value == '1' ? "true" : "false", to);
    } else {
        fputs(field->value, to);
    }
}

static void print_samples(FILE * to, const struct test * test, double tokens) {
    for (int i = 0; i < test->repeats; i++) {
        const double value = tokens > 0 ? 1e9 * tokens / test->samples_ns[i] : test->samples_ns[i];
        fprintf(to, tokens > 0 ? "%s%g" : "%s%.0f", i ? ", " : "", value);
    }
}

static void print_json(FILE * to, const struct test * test, const struct field * fields, int count, int is_line) {
    const double tokens = test->prompt + test->gen;
    for (int i = 0; i < count; i++) {
        fprintf(to, is_line ? "\"%s\": " : "    \"%s\": ", fields[i].name);
        print_json_value(to, &fields[i]);
        fputs(is_line ? ", " : ",\n", to);
    }
    fputs(is_line ? "\"samples_ns\": [ " : "    \"samples_ns\": [ ", to);
    print_samples(to, test, 0);
    fputs(is_line ? " ],\"samples_ts\": [ " : " ],\n    \"samples_ts\": [ ", to);
    print_samples(to, test, tokens);
    fputs(is_line ? " ]}\n" : " ]\n  }", to);
}

static void print_row(FILE * to, const struct field * fields, int count, int is_sql) {
    if (is_sql) {
        fputs("INSERT INTO llama_bench (", to);
        for (int i = 0; i < count; i++) {
            fprintf(to, "%s%s", i ? ", " : "", fields[i].name);
        }
        fputs(") VALUES (", to);
    }
    for (int i = 0; i < count; i++) {
        fprintf(to, is_sql ? "%s'%s'" : "%s\"%s\"", i ? (is_sql ? ", " : ",") : "", fields[i].value);
    }
    fputs(is_sql ? ");\n" : "\n", to);
}

static void print_table_row(FILE * to, const struct test * test) {
    char name[64];
    char size[32];
    char speed[64];
    double ts[2];
    statistics(test, test->prompt + test->gen, &ts[0], &ts[1]);
    snprintf(size, sizeof(size), "%.2f MiB", (double) test->model->n_bytes / 1048576.0);
    snprintf(speed, sizeof(speed), "%.2f ± %.2f", ts[0], ts[1]);
    if (test->gen == 0 || test->prompt == 0) {
        snprintf(name, sizeof(name), test->gen == 0 ? "pp%d" : "tg%d", test->prompt + test->gen);
    } else {
        snprintf(name, sizeof(name), "pp%d+tg%d", test->prompt, test->gen);
    }
    if (test->depth > 0) {
        snprintf(name + strlen(name), sizeof(name) - strlen(name), " @ d%d", test->depth);
    }
    char type[64];
    char weights[32];
    snprintf(type, sizeof(type), "%s ?B %s", test->model->arch, ftype_name(test->model->file_type));
    snprintf(weights, sizeof(weights), "%.2f M", (double) test->model->n_weights / 1e6);
    fprintf(to, "| %-30s | %10s | %10s | %-10s | %7d | %15s | %21s |\n", type, size, weights, backend(), test->threads, name, speed);
}

void print_head(FILE * to, const char * format) {
    static struct field fields[FIELDS];
    const struct model model = { .arch = "" };
    const struct test none = { .path = "", .model = &model, .prompt = 1, .type_k = "", .type_v = "" };
    if (strcmp(format, "json") == 0) {
        fputs("[\n", to);
    } else if (strcmp(format, "md") == 0) {
        fputs("| model                          |       size |     params | backend    | threads |            test |                  t/s |\n"
              "| ------------------------------ | ---------: | ---------: | ---------- | ------: | --------------: | -------------------: |\n", to);
    } else if (strcmp(format, "csv") == 0 || strcmp(format, "sql") == 0) {
        const int is_sql = strcmp(format, "sql") == 0;
        const int count = fields_of(&none, fields);
        fputs(is_sql ? "CREATE TABLE IF NOT EXISTS llama_bench (\n" : "", to);
        for (int i = 0; i < count; i++) {
            const char * type = fields[i].kind == 's' ? "TEXT" : fields[i].kind == 'f' ? "REAL" : "INTEGER";
            fprintf(to, is_sql ? "  %s %s%s\n" : "%s%.0s%s", fields[i].name, type, i + 1 < count ? "," : "");
        }
        fputs(is_sql ? ");\n\n" : "\n", to);
    }
}

void print_test(FILE * to, const char * format, const struct test * test, int is_first) {
    static struct field fields[FIELDS];
    const int count = fields_of(test, fields);
    if (strcmp(format, "json") == 0) {
        fputs(is_first ? "  {\n" : ",\n  {\n", to);
        print_json(to, test, fields, count, 0);
    } else if (strcmp(format, "jsonl") == 0) {
        fputc('{', to);
        print_json(to, test, fields, count, 1);
    } else if (strcmp(format, "md") == 0) {
        print_table_row(to, test);
    } else if (strcmp(format, "none") != 0) {
        print_row(to, fields, count, strcmp(format, "sql") == 0);
    }
    fflush(to);
}

void print_foot(FILE * to, const char * format) {
    if (strcmp(format, "json") == 0) {
        fputs("\n]\n", to);
    } else if (strcmp(format, "md") == 0) {
        fprintf(to, "\nbuild: %s (%d)\n", LLAMA_COMMIT, LLAMA_BUILD_NUMBER);
    }
}

