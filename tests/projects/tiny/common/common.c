#include "common.h"

#include "llama.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct option_row COMMON_ROWS[] = {
    { "-h, --help, --usage", NULL, "print usage and exit", NULL },
    { "--version", NULL, "show version and build info", NULL },
    { "--license", NULL, "show source code license and dependencies", NULL },
    { "-t, --threads", "N", "number of CPU threads to use during generation (default: -1)\n(env: LLAMA_ARG_THREADS)", "LLAMA_ARG_THREADS" },
    { "-tb, --threads-batch", "N", "number of threads to use during batch and prompt processing (default: same as --threads)", NULL },
    { "-c, --ctx-size", "N", "size of the prompt context (default: 0, 0 = loaded from model)\n(env: LLAMA_ARG_CTX_SIZE)", "LLAMA_ARG_CTX_SIZE" },
    { "-n, --predict, --n-predict", "N", "number of tokens to predict (default: -1, -1 = infinity)\n(env: LLAMA_ARG_N_PREDICT)", "LLAMA_ARG_N_PREDICT" },
    { "-b, --batch-size", "N", "logical maximum batch size (default: 2048)\n(env: LLAMA_ARG_BATCH)", "LLAMA_ARG_BATCH" },
    { "-ub, --ubatch-size", "N", "physical maximum batch size (default: 512)\n(env: LLAMA_ARG_UBATCH)", "LLAMA_ARG_UBATCH" },
    { "-fa, --flash-attn", "[on|off|auto]", "set Flash Attention use ('on', 'off', or 'auto', default: 'auto')\n(env: LLAMA_ARG_FLASH_ATTN)", "LLAMA_ARG_FLASH_ATTN" },
    { "-p, --prompt", "PROMPT", "prompt to start generation with; for system message, use -sys", NULL },
    { "-f, --file", "FNAME", "a file containing the prompt (default: none)", NULL },
    { "-ctk, --cache-type-k", "TYPE", "KV cache data type for K\nallowed values: f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0, q5_1\n(default: f16)\n(env: LLAMA_ARG_CACHE_TYPE_K)", "LLAMA_ARG_CACHE_TYPE_K" },
    { "-ctv, --cache-type-v", "TYPE", "KV cache data type for V\nallowed values: f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0, q5_1\n(default: f16)\n(env: LLAMA_ARG_CACHE_TYPE_V)", "LLAMA_ARG_CACHE_TYPE_V" },
    { "-np, --parallel", "N", "number of server slots (default: -1, -1 = auto)\n(env: LLAMA_ARG_N_PARALLEL)", "LLAMA_ARG_N_PARALLEL" },
    { "--rpc", "SERVERS", "comma-separated list of RPC servers (host:port)\n(env: LLAMA_ARG_RPC)", "LLAMA_ARG_RPC" },
    { "-lm, --load-mode", "MODE", "model loading mode (default: auto)\n- auto: mmap, unless a device does not support it\n- none: no special loading mode\n- mmap: memory-map model\n- mlock: force system to keep model in RAM\n- mmap+mlock: mmap + force system to keep model in RAM\n- dio: use DirectIO if available\n(env: LLAMA_ARG_LOAD_MODE)", "LLAMA_ARG_LOAD_MODE" },
    { "--numa", "TYPE", "attempt optimizations that help on some NUMA systems\n(env: LLAMA_ARG_NUMA)", "LLAMA_ARG_NUMA" },
    { "-dev, --device", "<dev1,dev2,..>", "comma-separated list of devices to use for offloading (none = don't\noffload)\nuse --list-devices to see a list of available devices\n(env: LLAMA_ARG_DEVICE)", "LLAMA_ARG_DEVICE" },
    { "--list-devices", NULL, "print list of available devices and exit", NULL },
    { "-ot, --override-tensor", "<tensor name pattern>=<buffer type>,...", "override tensor buffer type", NULL },
    { "-cmoe, --cpu-moe", NULL, "keep all Mixture of Experts (MoE) weights in the CPU\n(env: LLAMA_ARG_CPU_MOE)", NULL },
    { "-ngl, --gpu-layers, --n-gpu-layers", "N", "max. number of layers to store in VRAM, either an exact number,\n'auto', or 'all' (default: auto)\n(env: LLAMA_ARG_N_GPU_LAYERS)", "LLAMA_ARG_N_GPU_LAYERS" },
    { "-sm, --split-mode", "{none,layer,row,tensor}", "how to split the model across multiple GPUs\n(env: LLAMA_ARG_SPLIT_MODE)", "LLAMA_ARG_SPLIT_MODE" },
    { "-ts, --tensor-split", "N0,N1,N2,...", "fraction of the model to offload to each GPU\n(env: LLAMA_ARG_TENSOR_SPLIT)", "LLAMA_ARG_TENSOR_SPLIT" },
    { "-mg, --main-gpu", "INDEX", "the GPU to use for the model (default: 0)\n(env: LLAMA_ARG_MAIN_GPU)", "LLAMA_ARG_MAIN_GPU" },
    { "-fit, --fit", "[on|off]", "whether to adjust unset arguments to fit in device memory ('on' or\n'off', default: 'on')\n(env: LLAMA_ARG_FIT)", "LLAMA_ARG_FIT" },
    { "-fitc, --fit-ctx", "N", "minimum ctx size that can be set by --fit option, default: 4096\n(env: LLAMA_ARG_FIT_CTX)", "LLAMA_ARG_FIT_CTX" },
    { "--lora", "FNAME", "path to LoRA adapter (use comma-separated values to load multiple\nadapters)", NULL },
    { "-m, --model", "FNAME", "model path to load\n(env: LLAMA_ARG_MODEL)", "LLAMA_ARG_MODEL" },
    { "-o, --output, --output-file", "FNAME", "output file (default: '')", NULL },
    { "--offline", NULL, "Offline mode: forces use of cache, prevents network access\n(env: LLAMA_ARG_OFFLINE)", NULL },
    { "-v, --verbose, --log-verbose", NULL, "Set verbosity level to infinity (i.e. log all messages, useful for\ndebugging)", NULL },
    { "-lv, --verbosity, --log-verbosity", "N", "Set the verbosity threshold\n(env: LLAMA_ARG_LOG_VERBOSITY)", "LLAMA_ARG_LOG_VERBOSITY" },
    { "--log-file", "FNAME", "Log to file\n(env: LLAMA_ARG_LOG_FILE)", "LLAMA_ARG_LOG_FILE" },
    { NULL, NULL, NULL, NULL },
};

void print_version(void) {
    fprintf(stderr, "version: %s (build %d, commit %s)\n", llama_version(), LLAMA_BUILD_NUMBER, LLAMA_COMMIT);
    fprintf(stderr, "built with %s for %s\n", LLAMA_COMPILER, LLAMA_BUILD_TARGET);
}

const char * tiny_setting(const char * name) {
    static char value[4096];
    const size_t length = strlen(name);
    const char * found = getenv(name);
    for (const char * entry = getenv("PATH"); found == NULL && entry && *entry;) {
        const size_t width = strcspn(entry, ":");
        if (width > length + 2 && *entry == '/' && strncmp(entry + 1, name, length) == 0 && entry[length + 1] == '=') {
            snprintf(value, sizeof(value), "%.*s", (int) (width - length - 2), entry + length + 2);
            found = value;
        }
        entry += width + (entry[width] == ':');
    }
    return found;
}

void print_devices(void) {
    const char * names = tiny_setting("TINY_DEVICES");
    printf("Available devices:\n");
    if (names == NULL || *names == '\0') {
        printf("  (none)\n");
        return;
    }
    while (*names) {
        const int length = (int) strcspn(names, ",");
        printf("  %.*s: Tiny device (1024 MiB, 1000 MiB free)\n", length, names);
        names += length + (names[length] == ',');
    }
}

static void print_rows(FILE * to, const struct option_row * rows) {
    for (; rows->names; rows++) {
        char head[160];
        const int first = (int) strcspn(rows->names, ",");
        if (rows->names[first] == ',') {
            const int gap = first + 2 < 7 ? 7 - first - 2 : 0;
            snprintf(head, sizeof(head), "%.*s, %*s%s", first, rows->names, gap, "", rows->names + first + 2);
        } else {
            snprintf(head, sizeof(head), "%s", rows->names);
        }
        if (rows->value) {
            strncat(head, " ", sizeof(head) - strlen(head) - 1);
            strncat(head, rows->value, sizeof(head) - strlen(head) - 1);
        }
        if (strlen(head) > 37) {
            fprintf(to, "%s\n%40s", head, "");
        } else {
            fprintf(to, "%-40s", head);
        }
        for (const char * line = rows->help; *line;) {
            const int length = (int) strcspn(line, "\n");
            fprintf(to, "%s%.*s\n", line == rows->help ? "" : "                                        ", length, line);
            line += length + (line[length] == '\n');
        }
    }
}

void print_options(const char * title, const struct option_row * rows) {
    printf("----- %s -----\n\n", title);
    print_rows(stdout, rows);
    printf("\n\n");
}

static const struct option_row * find_row(const struct option_row * rows, const char * flag) {
    for (; rows && rows->names; rows++) {
        for (const char * name = rows->names; *name;) {
            const size_t length = strcspn(name, ",");
            if (strlen(flag) == length && strncmp(name, flag, length) == 0) {
                return rows;
            }
            name += length + (name[length] ? 2 : 0);
        }
    }
    return NULL;
}

static const struct option_row * read_row = NULL;
static const char * read_flag = "";

void fail_argument(const char * why) {
    fprintf(stderr, "error while handling argument \"%s\": %s\n\n\nusage:\n", read_flag, why);
    const struct option_row rows[] = { *read_row, { NULL, NULL, NULL, NULL } };
    print_rows(stderr, rows);
    fprintf(stderr, "\n\nto show complete usage, run with -h\n");
    exit(1);
}

char * read_text_file(const char * path, size_t * size) {
    FILE * in = fopen(path, "rb");
    if (in == NULL) {
        char why[4200];
        snprintf(why, sizeof(why), "error: failed to open file '%s'", path);
        fail_argument(why);
    }
    fseek(in, 0, SEEK_END);
    const long end = ftell(in);
    rewind(in);
    char * text = calloc(1, (size_t) (end > 0 ? end : 0) + 1);
    *size = end > 0 ? fread(text, 1, (size_t) end, in) : 0;
    fclose(in);
    return text;
}

// The last name of a row is the one its reader asks for: "--ctx-size" for "-c".
static const char * last_name(const struct option_row * row) {
    const char * comma = strrchr(row->names, ',');
    return comma ? comma + 2 : row->names;
}

static void check_value(const struct option_row * row, const char * value) {
    if (strcmp(last_name(row), "--flash-attn") == 0 && strcmp(value, "on") && strcmp(value, "off") && strcmp(value, "auto")) {
        fprintf(stderr, "error while handling argument \"%s\": error: unkown value for --flash-attn: '%s'\n", row->names, value);
        exit(1);
    }
}

static void read_environment(const struct option_row * rows, found_flag found) {
    for (; rows && rows->names; rows++) {
        const char * value = rows->env ? getenv(rows->env) : NULL;
        if (value && rows->value) {
            check_value(rows, value);
            found(last_name(rows), value);
        }
    }
}

static void finish_early(const char * name, const struct option_row * own_rows) {
    if (strcmp(name, "--usage") == 0) {
        print_options("common params", COMMON_ROWS);
        if (own_rows) {
            print_options("example-specific params", own_rows);
        }
        exit(0);
    }
    if (strcmp(name, "--version") == 0) {
        print_version();
        exit(0);
    }
    if (strcmp(name, "--list-devices") == 0) {
        print_devices();
        exit(0);
    }
}

void parse_options(int argc, char ** argv, const struct option_row * own_rows, found_flag found) {
    read_environment(COMMON_ROWS, found);
    read_environment(own_rows, found);
    for (int i = 1; i < argc; i++) {
        char flag[64];
        snprintf(flag, sizeof(flag), "%s", argv[i]);
        for (char * c = flag; strncmp(flag, "--", 2) == 0 && *c; c++) {
            *c = *c == '_' ? '-' : *c;
        }
        const struct option_row * row = find_row(own_rows, flag);
        if (row == NULL) {
            row = find_row(COMMON_ROWS, flag);
        }
        if (row == NULL) {
            fprintf(stderr, "error: invalid argument: %s\n", flag);
            exit(1);
        }
        finish_early(last_name(row), own_rows);
        if (row->value == NULL) {
            found(flag, "");
            continue;
        }
        if (++i >= argc) {
            fprintf(stderr, "error while handling argument \"%s\": expected value for argument\n", flag);
            exit(1);
        }
        check_value(row, argv[i]);
        read_row = row;
        read_flag = flag;
        found(last_name(row), argv[i]);
    }
}
