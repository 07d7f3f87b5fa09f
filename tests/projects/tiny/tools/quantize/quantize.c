// The command line of llama-quantize; the work is in llama-quant.c.
#include "common.h"
#include "llama-quant.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

struct quant_option {
    const char * name;
    int ftype;
    const char * description;
};

static const struct quant_option QUANT_OPTIONS[] = {
    { "Q1_0",      40, " 1.125 bpw quantization" },
    { "Q2_0",      41, " 2.25 bpw quantization (group 64)" },
    { "Q4_0",       2, " 4.34G, +0.4685 ppl @ Llama-3-8B" },
    { "Q4_1",       3, " 4.78G, +0.4511 ppl @ Llama-3-8B" },
    { "MXFP4_MOE", 38, " MXFP4 MoE" },
    { "Q5_0",       8, " 5.21G, +0.1316 ppl @ Llama-3-8B" },
    { "Q5_1",       9, " 5.65G, +0.1062 ppl @ Llama-3-8B" },
    { "IQ2_XXS",   19, " 2.06 bpw quantization" },
    { "IQ2_XS",    20, " 2.31 bpw quantization" },
    { "IQ2_S",     28, " 2.5  bpw quantization" },
    { "IQ2_M",     29, " 2.7  bpw quantization" },
    { "IQ1_S",     24, " 1.56 bpw quantization" },
    { "IQ1_M",     31, " 1.75 bpw quantization" },
    { "TQ1_0",     36, " 1.69 bpw ternarization" },
    { "TQ2_0",     37, " 2.06 bpw ternarization" },
    { "Q2_K",      10, " 2.96G, +3.5199 ppl @ Llama-3-8B" },
    { "Q2_K_S",    21, " 2.96G, +3.1836 ppl @ Llama-3-8B" },
    { "IQ3_XXS",   23, " 3.06 bpw quantization" },
    { "IQ3_S",     26, " 3.44 bpw quantization" },
    { "IQ3_M",     27, " 3.66 bpw quantization mix" },
    { "Q3_K",      12, "alias for Q3_K_M" },
    { "IQ3_XS",    22, " 3.3 bpw quantization" },
    { "Q3_K_S",    11, " 3.41G, +1.6321 ppl @ Llama-3-8B" },
    { "Q3_K_M",    12, " 3.74G, +0.6569 ppl @ Llama-3-8B" },
    { "Q3_K_L",    13, " 4.03G, +0.5562 ppl @ Llama-3-8B" },
    { "IQ4_NL",    25, " 4.50 bpw non-linear quantization" },
    { "IQ4_XS",    30, " 4.25 bpw non-linear quantization" },
    { "Q4_K",      15, "alias for Q4_K_M" },
    { "Q4_K_S",    14, " 4.37G, +0.2689 ppl @ Llama-3-8B" },
    { "Q4_K_M",    15, " 4.58G, +0.1754 ppl @ Llama-3-8B" },
    { "Q5_K",      17, "alias for Q5_K_M" },
    { "Q5_K_S",    16, " 5.21G, +0.1049 ppl @ Llama-3-8B" },
    { "Q5_K_M",    17, " 5.33G, +0.0569 ppl @ Llama-3-8B" },
    { "Q6_K",      18, " 6.14G, +0.0217 ppl @ Llama-3-8B" },
    { "Q8_0",       7, " 7.96G, +0.0026 ppl @ Llama-3-8B" },
    { "F16",        1, "14.00G, +0.0020 ppl @ Mistral-7B" },
    { "BF16",      32, "14.00G, -0.0050 ppl @ Mistral-7B" },
    { "F32",        0, "26.00G              @ 7B" },
    { "COPY",       0, "only copy tensors, no quantizing" },
    { NULL,         0, NULL },
};

static const char * const VALUE_FLAGS[] = {
    "--imatrix", "--include-weights", "--exclude-weights", "--output-tensor-type", "--token-embedding-type",
    "--tensor-type", "--tensor-type-file", "--prune-layers", "--override-kv", "--max-buffer-size", NULL,
};

static const char * const SWITCHES[] = {
    "--allow-requantize", "--leave-output-tensor", "--pure", "--keep-split", "--dry-run", NULL,
};

static int is_one_of(const char * text, const char * const * list) {
    for (; *list; list++) {
        if (strcmp(text, *list) == 0) {
            return 1;
        }
    }
    return 0;
}

_Noreturn static void usage(const char * program) {
    printf("usage: %s [--help]", program);
    for (const char * const * flag = SWITCHES; *flag; flag++) {
        printf(" [%s]", *flag);
    }
    for (const char * const * flag = VALUE_FLAGS; *flag; flag++) {
        printf(" [%s]", *flag);
    }
    printf("\n       model-f32.gguf [model-quant.gguf] type [nthreads]\n\n");
    for (const char * const * flag = SWITCHES; *flag; flag++) {
        printf("  %s\n", *flag);
    }
    for (const char * const * flag = VALUE_FLAGS; *flag; flag++) {
        printf("  %s value\n", *flag);
    }
    printf("\n-----------------------------------------------------------------------------\n");
    printf(" allowed quantization types\n");
    printf("-----------------------------------------------------------------------------\n\n");
    for (const struct quant_option * row = QUANT_OPTIONS; row->name; row++) {
        if (strcmp(row->name, "COPY") == 0) {
            printf("          ");
        } else {
            printf("  %2d  or  ", row->ftype);
        }
        printf("%-7s : %s\n", row->name, row->description);
    }
    exit(1);
}

static const struct quant_option * find_type(const char * text) {
    for (const struct quant_option * row = QUANT_OPTIONS; row->name; row++) {
        const char * a = text;
        const char * b = row->name;
        while (*a && toupper((unsigned char) *a) == *b) {
            a++;
            b++;
        }
        if (*a == '\0' && *b == '\0') {
            return row;
        }
    }
    char * end = NULL;
    const long number = strtol(text, &end, 10);
    for (const struct quant_option * row = QUANT_OPTIONS; end != text && row->name; row++) {
        if (row->ftype == number) {
            return row;
        }
    }
    return NULL;
}

struct command {
    struct quant_params params;
    const char * matrix_file;
    int n_included;
    const char * included[OVERRIDES];
    int n_excluded;
    const char * excluded[OVERRIDES];
};

static int parse_type(const char * text, const struct ggml_type ** type) {
    *type = ggml_type_named(text);
    if (*type == NULL) {
        fprintf(stderr, "\nparse_ggml_type: invalid ggml_type '%s'\n\n", text);
    }
    return *type != NULL;
}

static int parse_tensor_type(const char * text, struct quant_params * params) {
    const char * equals = strchr(text, '=');
    if (equals == NULL) {
        printf("\nparse_tensor_type: malformed tensor type '%s'\n\n", text);
        return 0;
    }
    if (equals == text || equals[1] == '\0') {
        printf("\nparse_tensor_type: missing %s\n\n", equals == text ? "tensor name" : "quantization type");
        return 0;
    }
    char * pattern = calloc(1, strlen(text) + 1);
    for (const char * c = text; c < equals; c++) {
        pattern[c - text] = (char) tolower((unsigned char) *c);
    }
    struct type_override * row = &params->types[params->n_types < OVERRIDES ? params->n_types++ : OVERRIDES - 1];
    row->pattern = pattern;
    return parse_type(equals + 1, &row->type);
}

static int parse_tensor_type_file(const char * path, struct quant_params * params) {
    FILE * in = fopen(path, "r");
    if (in == NULL) {
        printf("\nparse_tensor_type_file: failed to open file '%s': %s\n\n", path, strerror(errno));
        return 0;
    }
    char word[1024];
    int is_good = 1;
    while (is_good && fscanf(in, "%1023s", word) == 1) {
        is_good = parse_tensor_type(word, params);
    }
    fclose(in);
    return is_good;
}

static int parse_layers(const char * text, struct quant_params * params) {
    char copy[1024];
    snprintf(copy, sizeof(copy), "%s", text);
    for (char * part = strtok(copy, ","); part; part = strtok(NULL, ",")) {
        char * end = NULL;
        const long layer = strtol(part, &end, 10);
        if (end == part || layer < 0) {
            printf("\nparse_layer_prune: invalid layer id '%s'\n\n", part);
            return 0;
        }
        params->pruned[params->n_pruned < OVERRIDES ? params->n_pruned++ : OVERRIDES - 1] = (int) layer;
    }
    return 1;
}

static int malformed(const char * why, const char * text, const char * more) {
    fprintf(stderr, "cmn  string_parse: string_parse_kv_override: %s KV override '%s'%s\n", why, text, more);
    return 0;
}

static int parse_override(const char * text, struct quant_params * params) {
    const char * equals = strchr(text, '=');
    struct key_override * row = &params->keys[params->n_keys < OVERRIDES ? params->n_keys++ : OVERRIDES - 1];
    if (equals == NULL || equals - text >= (int) sizeof(row->key)) {
        return malformed("malformed", text, "");
    }
    memset(row, 0, sizeof(*row));
    memcpy(row->key, text, (size_t) (equals - text));
    if (strncmp(equals + 1, "int:", 4) == 0) {
        row->type = GGUF_U32;
        row->whole = (uint32_t) labs(atol(equals + 5));
    } else if (strncmp(equals + 1, "float:", 6) == 0) {
        row->type = GGUF_F32;
        row->real = (float) atof(equals + 7);
    } else if (strncmp(equals + 1, "bool:", 5) == 0) {
        row->type = GGUF_BOOL;
        row->whole = strcmp(equals + 6, "true") == 0;
        return row->whole || strcmp(equals + 6, "false") == 0 || malformed("invalid boolean value for", text, "");
    } else if (strncmp(equals + 1, "str:", 4) == 0) {
        row->type = GGUF_STRING;
        if (strlen(equals + 5) > 127) {
            return malformed("malformed", text, ", value cannot exceed 127 chars");
        }
        snprintf(row->text, sizeof(row->text), "%s", equals + 5);
    } else {
        return malformed("invalid type for", text, "");
    }
    return 1;
}

static int parse_buffer(const char * text) {
    if (atoi(text) <= 0) {
        fprintf(stderr, "llama_quantize: invalid --max-buffer-size '%s'\n", text);
        exit(1);
    }
    return 1;
}

static int take_value(struct command * command, const char * flag, const char * value) {
    struct quant_params * params = &command->params;
    if (strcmp(flag, "--imatrix") == 0) {
        command->matrix_file = value;
    } else if (strcmp(flag, "--include-weights") == 0) {
        command->included[command->n_included++ % OVERRIDES] = value;
    } else if (strcmp(flag, "--exclude-weights") == 0) {
        command->excluded[command->n_excluded++ % OVERRIDES] = value;
    } else if (strcmp(flag, "--output-tensor-type") == 0) {
        return parse_type(value, &params->output_type);
    } else if (strcmp(flag, "--token-embedding-type") == 0) {
        return parse_type(value, &params->embedding_type);
    } else if (strcmp(flag, "--tensor-type") == 0) {
        return parse_tensor_type(value, params);
    } else if (strcmp(flag, "--tensor-type-file") == 0) {
        return parse_tensor_type_file(value, params);
    } else if (strcmp(flag, "--prune-layers") == 0) {
        return parse_layers(value, params);
    } else if (strcmp(flag, "--override-kv") == 0) {
        return parse_override(value, params);
    } else {
        return parse_buffer(value);
    }
    return 1;
}

static void take_switch(struct quant_params * params, const char * flag) {
    params->allow_requantize |= strcmp(flag, "--allow-requantize") == 0;
    params->leave_output |= strcmp(flag, "--leave-output-tensor") == 0;
    params->pure |= strcmp(flag, "--pure") == 0;
    params->keep_split |= strcmp(flag, "--keep-split") == 0;
    params->dry_run |= strcmp(flag, "--dry-run") == 0;
}

static int parse_flags(int argc, char ** argv, struct command * command) {
    int i = 1;
    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        if (is_one_of(argv[i], SWITCHES)) {
            take_switch(&command->params, argv[i]);
        } else if (!is_one_of(argv[i], VALUE_FLAGS) || i + 1 >= argc || !take_value(command, argv[i], argv[i + 1])) {
            usage(argv[0]);
        } else {
            i++;
        }
    }
    return i;
}

static int is_wanted(const struct command * command, const char * name) {
    for (int i = 0; i < command->n_excluded && i < OVERRIDES; i++) {
        if (strstr(name, command->excluded[i])) {
            return 0;
        }
    }
    for (int i = 0; i < command->n_included && i < OVERRIDES; i++) {
        if (strstr(name, command->included[i])) {
            return 1;
        }
    }
    return command->n_included == 0;
}

static void read_matrix(struct command * command, struct imatrix * matrix) {
    const char * path = command->matrix_file;
    if (!imatrix_read(matrix, path)) {
        fprintf(stderr, "load_imatrix: failed to load imatrix from '%s'\n", path);
        exit(1);
    }
    if (!matrix->is_legacy && !matrix->has_metadata) {
        fprintf(stderr, "load_imatrix: missing imatrix metadata in file %s\n", path);
        exit(1);
    }
    for (size_t i = 0; i < matrix->n_datasets; i++) {
        printf("%s'%s'%s", i ? ", " : "load_imatrix: imatrix datasets=[", matrix->datasets[i], i + 1 < matrix->n_datasets ? "" : "]\n");
    }
    printf("load_imatrix: loaded %zu importance matrix entries from %s computed on %d chunks\n", matrix->n_entries, path, matrix->n_chunks);
    size_t kept = 0;
    for (size_t i = 0; i < matrix->n_entries; i++) {
        if (is_wanted(command, matrix->entries[i].name)) {
            matrix->entries[kept++] = matrix->entries[i];
        }
    }
    matrix->n_entries = kept;
    if (kept) {
        printf("prepare_imatrix: have %zu importance matrix entries\n", kept);
        command->params.matrix = matrix;
    }
}

static void add_key(struct quant_params * params, const char * key, const char * text, size_t number) {
    struct key_override * row = &params->keys[params->n_keys < OVERRIDES ? params->n_keys++ : OVERRIDES - 1];
    memset(row, 0, sizeof(*row));
    snprintf(row->key, sizeof(row->key), "%s", key);
    row->type = text ? GGUF_STRING : GGUF_U32;
    row->whole = (uint32_t) number;
    snprintf(row->text, sizeof(row->text), "%s", text ? text : "");
}

static void record_matrix(struct command * command) {
    const struct imatrix * matrix = command->params.matrix;
    add_key(&command->params, "quantize.imatrix.file", command->matrix_file, 0);
    if (matrix->n_datasets) {
        add_key(&command->params, "quantize.imatrix.dataset", matrix->datasets[0], 0);
    }
    add_key(&command->params, "quantize.imatrix.entries_count", NULL, matrix->n_entries);
    if (matrix->n_chunks > 0) {
        add_key(&command->params, "quantize.imatrix.chunks_count", NULL, (size_t) matrix->n_chunks);
    }
}

static void parse_files(int argc, char ** argv, int i, struct quant_params * params, char * output, const char ** type_name, int * threads) {
    const struct quant_option * type = find_type(argv[i + 1]);
    if (type) {
        const char * slash = strrchr(argv[i], '/');
        const int folder = slash ? (int) (slash - argv[i]) + 1 : 0;
        snprintf(output, 4096, "%.*sggml-model-%s%s", folder, argv[i], type->name, params->keep_split ? "" : ".gguf");
        i += 2;
    } else {
        snprintf(output, 4096, "%s", argv[i + 1]);
        char * suffix = strstr(output, ".gguf");
        if (params->keep_split && suffix) {
            output[strlen(output) - strlen(".gguf")] = '\0';
        }
        type = i + 2 < argc ? find_type(argv[i + 2]) : NULL;
        if (i + 2 >= argc) {
            fprintf(stderr, "llama_quantize: missing ftype\n");
            exit(1);
        }
        if (type == NULL) {
            fprintf(stderr, "llama_quantize: invalid ftype '%s'\n", argv[i + 2]);
            exit(1);
        }
        i += 3;
    }
    params->ftype = type->ftype;
    params->only_copy = strcmp(type->name, "COPY") == 0;
    *type_name = type->name;
    char * end = i < argc ? argv[i] : NULL;
    *threads = i < argc ? (int) strtol(argv[i], &end, 10) : 0;
    if (i < argc && end == argv[i]) {
        fprintf(stderr, "llama_quantize: invalid nthread '%s' (stoi)\n", argv[i]);
        exit(1);
    }
}

static int is_same_file(const char * first, const char * second) {
    struct stat a;
    struct stat b;
    return stat(first, &a) == 0 && stat(second, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec * 1e3 + (double) now.tv_nsec / 1e6;
}

static int run(const struct quant_params * params, const char * input, const char * output, const char * type_name, int threads) {
    if (!params->dry_run && is_same_file(input, output)) {
        fprintf(stderr, "llama_quantize: error: input and output files are the same: '%s'\n", input);
        return 1;
    }
    print_version();
    if (params->dry_run) {
        fprintf(stderr, "llama_quantize: calculating quantization size for '%s' as %s", input, type_name);
    } else {
        fprintf(stderr, "llama_quantize: quantizing '%s' to '%s' as %s", input, output, type_name);
    }
    if (threads > 0) {
        fprintf(stderr, " using %d threads", threads);
    }
    fprintf(stderr, "\n");
    const double started_ms = now_ms();
    if (llama_model_quantize(input, output, params)) {
        fprintf(stderr, "llama_quantize: failed to quantize model from '%s'\n", input);
        return 1;
    }
    printf("\nllama_quantize: quantize time = %8.2f ms\n", now_ms() - started_ms);
    printf("llama_quantize:    total time = %8.2f ms\n", now_ms() - started_ms);
    return 0;
}

int llama_quantize(int argc, char ** argv) {
    static struct command command;
    static struct imatrix matrix;
    char output[4096];
    const char * type_name = NULL;
    int threads = 0;
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        print_version();
        return 0;
    }
    if (argc < 3) {
        usage(argv[0]);
    }
    const int first = parse_flags(argc, argv, &command);
    if (argc - first < 2) {
        printf("%s: bad arguments\n", argv[0]);
        usage(argv[0]);
    }
    if (command.n_included && command.n_excluded) {
        usage(argv[0]);
    }
    if (command.matrix_file) {
        read_matrix(&command, &matrix);
    }
    if (command.params.matrix) {
        record_matrix(&command);
    }
    parse_files(argc, argv, first, &command.params, output, &type_name, &threads);
    return run(&command.params, argv[first], output, type_name, threads);
}
