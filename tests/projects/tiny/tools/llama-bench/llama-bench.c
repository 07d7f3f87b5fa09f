// Speeds that nobody measured: the smaller the model and the more threads, the faster.
#include "bench.h"

#include "common.h"
#include "log.h"
#include "output.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VALUES = 32, TESTS = 4096 };

struct numbers {
    int count;
    int values[VALUES];
};

static struct {
    const char * models[VALUES];
    int n_models;
    struct numbers prompt, gen, pg, depth, batch, ubatch, threads, layers, flash;
    const char * type_k;
    const char * type_v;
    const char * format;
    const char * error_format;
    int repeats;
    int shows_progress;
    int no_warmup;
} command = { .type_k = "f16", .type_v = "f16", .format = "md", .error_format = "none", .repeats = 5 };

// ---- the command line ----

static const char * const VALUE_FLAGS[][3] = {
    { "-m", "--model", "<filename>" },          { "-p", "--n-prompt", "<n>" },        { "-n", "--n-gen", "<n>" },
    { "-pg", "-pg", "<pp,tg>" },                { "-d", "--n-depth", "<n>" },         { "-b", "--batch-size", "<n>" },
    { "-ub", "--ubatch-size", "<n>" },          { "-ctk", "--cache-type-k", "<t>" },  { "-ctv", "--cache-type-v", "<t>" },
    { "-t", "--threads", "<n>" },               { "-ngl", "--n-gpu-layers", "<n>" },  { "-fa", "--flash-attn", "<on|off|auto>" },
    { "-r", "--repetitions", "<n>" },           { "-o", "--output", "<csv|json|jsonl|md|sql>" },
    { "-oe", "--output-err", "<csv|json|jsonl|md|sql>" }, { "-C", "--cpu-mask", "<hex,hex>" },
    { "--cpu-strict", "--cpu-strict", "<0|1>" }, { "--poll", "--poll", "<0...100>" }, { "--numa", "--numa", "<mode>" },
    { "--prio", "--prio", "<n>" },              { "--delay", "--delay", "<n>" },      { "-ncmoe", "--n-cpu-moe", "<n>" },
    { "-sm", "--split-mode", "<none|layer|row|tensor>" }, { "-mg", "--main-gpu", "<i>" }, { "-nkvo", "--no-kv-offload", "<0|1>" },
    { "-dev", "--device", "<dev0/dev1/...>" },  { "-lm", "--load-mode", "<mode>" },   { "-lzm", "--lazy-mode", "<on|auto|off>" },
    { "-embd", "--embeddings", "<0|1>" },       { "-ts", "--tensor-split", "<ts0/ts1/..>" }, { "-ot", "--override-tensor", "<pattern>" },
    { "-nopo", "--no-op-offload", "<0|1>" },    { "--no-host", "--no-host", "<0|1>" }, { "--repack", "--repack", "<0|1>" },
    { "-fitt", "--fit-target", "<MiB>" },       { "-fitc", "--fit-ctx", "<n>" },      { NULL, NULL, NULL },
};

static void usage(const char * program) {
    printf("usage: %s [options]\n\noptions:\n  -h, --help\n  --version\n  --list-devices\n  -v, --verbose\n  --progress\n  --no-warmup\n", program);
    for (int i = 0; VALUE_FLAGS[i][0]; i++) {
        printf("  %s, %s %s\n", VALUE_FLAGS[i][0], VALUE_FLAGS[i][1], VALUE_FLAGS[i][2]);
    }
    printf("\nMultiple values can be given for each parameter by separating them with ','\n"
           "or by specifying the parameter multiple times. Ranges can be given as\n"
           "'first-last' or 'first-last+step' or 'first-last*mult'.\n");
}

static int add(struct numbers * numbers, int value) {
    if (numbers->count < VALUES) {
        numbers->values[numbers->count++] = value;
    }
    return 1;
}

// first[-last[(+|*)step]], more of them behind commas
static int parse_numbers(struct numbers * numbers, const char * text) {
    while (*text) {
        char * end = NULL;
        const int first = (int) strtol(text, &end, 10);
        int last = first;
        int step = 1;
        char operation = '+';
        if (end == text) {
            return 0;
        }
        if (*end == '-') {
            last = (int) strtol(end + 1, &end, 10);
        }
        if (*end == '+' || *end == '*') {
            operation = *end;
            step = (int) strtol(end + 1, &end, 10);
        }
        if ((*end && *end != ',') || (operation == '+' ? step < 1 : step < 2)) {
            return 0;
        }
        for (int i = first; i <= last && numbers->count < VALUES; i = operation == '+' ? i + step : i * step) {
            add(numbers, i);
        }
        text = *end ? end + 1 : end;
    }
    return 1;
}

static int parse_pair(const char * text) {
    int prompt = 0;
    int gen = 0;
    return sscanf(text, "%d,%d", &prompt, &gen) == 2 && add(&command.pg, prompt) && add(&command.pg, gen);
}

static int parse_format(const char ** format, const char * text) {
    static const char * const KNOWN[] = { "none", "csv", "json", "jsonl", "md", "sql", NULL };
    *format = text;
    for (const char * const * known = KNOWN; *known; known++) {
        if (strcmp(*known, text) == 0) {
            return 1;
        }
    }
    return 0;
}

static int parse_flash(const char * text) {
    if (strcmp(text, "on") == 0 || strcmp(text, "1") == 0) {
        return add(&command.flash, 1);
    }
    if (strcmp(text, "off") == 0 || strcmp(text, "0") == 0) {
        return add(&command.flash, 0);
    }
    return strcmp(text, "auto") == 0 && add(&command.flash, -1);
}

static int take_value(const char * flag, const char * value) {
    const struct { const char * flag; struct numbers * to; } lists[] = {
        { "--n-prompt", &command.prompt }, { "--n-gen", &command.gen },     { "--n-depth", &command.depth },
        { "--batch-size", &command.batch }, { "--ubatch-size", &command.ubatch }, { "--threads", &command.threads },
        { "--n-gpu-layers", &command.layers },
    };
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        if (strcmp(lists[i].flag, flag) == 0) {
            return parse_numbers(lists[i].to, value);
        }
    }
    if (strcmp(flag, "--model") == 0) {
        for (char * name = strtok(strcpy(malloc(strlen(value) + 1), value), ","); name; name = strtok(NULL, ",")) {
            command.models[command.n_models < VALUES ? command.n_models++ : VALUES - 1] = name;
        }
    } else if (strcmp(flag, "-pg") == 0) {
        return parse_pair(value);
    } else if (strcmp(flag, "--output") == 0 || strcmp(flag, "--output-err") == 0) {
        return parse_format(strcmp(flag, "--output") == 0 ? &command.format : &command.error_format, value);
    } else if (strcmp(flag, "--flash-attn") == 0) {
        return parse_flash(value);
    } else if (strcmp(flag, "--cache-type-k") == 0) {
        command.type_k = value;
    } else if (strcmp(flag, "--cache-type-v") == 0) {
        command.type_v = value;
    } else if (strcmp(flag, "--repetitions") == 0) {
        command.repeats = atoi(value);
        return command.repeats > 0 && command.repeats <= REPEATS;
    }
    return 1;
}

static int take_switch(const char * program, const char * flag) {
    if (strcmp(flag, "-h") == 0 || strcmp(flag, "--help") == 0) {
        usage(program);
        exit(0);
    }
    if (strcmp(flag, "--version") == 0) {
        print_version();
        exit(0);
    }
    if (strcmp(flag, "--list-devices") == 0) {
        print_devices();
        exit(0);
    }
    command.shows_progress |= strcmp(flag, "--progress") == 0;
    command.no_warmup |= strcmp(flag, "--no-warmup") == 0;
    return strcmp(flag, "--progress") == 0 || strcmp(flag, "--no-warmup") == 0 || strcmp(flag, "-v") == 0 ||
           strcmp(flag, "--verbose") == 0 || strcmp(flag, "--offline") == 0;
}

static const char * value_flag(const char * flag) {
    for (int i = 0; VALUE_FLAGS[i][0]; i++) {
        if (strcmp(VALUE_FLAGS[i][0], flag) == 0 || strcmp(VALUE_FLAGS[i][1], flag) == 0) {
            return VALUE_FLAGS[i][1];
        }
    }
    return NULL;
}

static void parse(int argc, char ** argv) {
    for (int i = 1; i < argc; i++) {
        char flag[64];
        snprintf(flag, sizeof(flag), "%s", argv[i]);
        for (char * c = flag; strncmp(flag, "--", 2) == 0 && *c; c++) {
            *c = *c == '_' ? '-' : *c;
        }
        const char * known = value_flag(flag);
        const int is_good = known ? i + 1 < argc && take_value(known, argv[i + 1]) : take_switch(argv[0], flag);
        if (!is_good) {
            fprintf(stderr, "error: invalid parameter for argument: %s\n", flag);
            usage(argv[0]);
            exit(1);
        }
        i += known != NULL;
    }
}

static void set_defaults(void) {
    const struct { struct numbers * numbers; int value; } defaults[] = {
        { &command.prompt, 512 }, { &command.gen, 128 },  { &command.depth, 0 },  { &command.batch, 2048 },
        { &command.ubatch, 512 }, { &command.layers, -1 }, { &command.flash, -1 },
        { &command.threads, (int) sysconf(_SC_NPROCESSORS_ONLN) },
    };
    for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++) {
        if (defaults[i].numbers->count == 0) {
            add(defaults[i].numbers, defaults[i].value);
        }
    }
    if (command.n_models == 0) {
        command.models[command.n_models++] = "models/7B/ggml-model-q4_0.gguf";
    }
}

// ---- tests ----

static void run_test(struct test * test, double share) {
    const double weight_ns = (double) test->model->n_bytes / 4.0;
    for (int i = 0; i < command.repeats; i++) {
        const double jitter = 1.0 + 0.01 * (double) (mixed(test->model->identity + (uint64_t) i) % 5);
        pace(share / command.repeats);
        test->samples_ns[i] = 1000.0 + weight_ns * jitter * (test->prompt / 8.0 / test->threads + test->gen);
    }
}

static int add_test(struct test * tests, int count, struct test test, int prompt, int gen) {
    test.prompt = prompt;
    test.gen = gen;
    if (count < TESTS && (prompt > 0 || gen > 0)) {
        tests[count++] = test;
    }
    return count;
}

// Prompts, then generations, then both together: in upstream's order.
static int add_tests(struct test * tests, int count, const struct test * settings) {
    for (int i = 0; i < command.prompt.count; i++) {
        count = add_test(tests, count, *settings, command.prompt.values[i], 0);
    }
    for (int i = 0; i < command.gen.count; i++) {
        count = add_test(tests, count, *settings, 0, command.gen.values[i]);
    }
    for (int i = 0; i + 1 < command.pg.count; i += 2) {
        count = add_test(tests, count, *settings, command.pg.values[i], command.pg.values[i + 1]);
    }
    return count;
}

// Every combination of the values, the last list changing first.
static int plan_tests(struct test * tests, const struct model * models) {
    const struct numbers * const lists[] = {
        &command.layers, &command.batch, &command.ubatch, &command.flash, &command.threads, &command.depth,
    };
    enum { LISTS = sizeof(lists) / sizeof(lists[0]) };
    int combinations = 1;
    int count = 0;
    for (int i = 0; i < LISTS; i++) {
        combinations *= lists[i]->count;
    }
    for (int m = 0; m < command.n_models; m++) {
        for (int i = 0; i < combinations; i++) {
            int chosen[LISTS];
            for (int list = LISTS - 1, rest = i; list >= 0; rest /= lists[list--]->count) {
                chosen[list] = lists[list]->values[rest % lists[list]->count];
            }
            const struct test settings = {
                .path = command.models[m], .model = &models[m], .type_k = command.type_k, .type_v = command.type_v,
                .repeats = command.repeats, .layers = chosen[0], .batch = chosen[1], .ubatch = chosen[2], .flash = chosen[3],
                .threads = chosen[4], .depth = chosen[5],
            };
            count = add_tests(tests, count, &settings);
        }
    }
    return count;
}

static int load(struct model * model, const char * path) {
    if (model->head == NULL && !model_load(model, path)) {
        fprintf(stderr, "llama_bench: error: failed to load model '%s'\n", path);
        return 0;
    }
    return 1;
}

static void tell_runs(const struct test * test, int number, int count) {
    const char * what = test->prompt > 0 ? "prompt" : "generation";
    fprintf(stderr, "llama-bench: benchmark %d/%d: starting\n", number, count);
    if (!command.no_warmup) {
        fprintf(stderr, "llama-bench: benchmark %d/%d: warmup %s run\n", number, count, what);
    }
    for (int i = 0; i < command.repeats; i++) {
        fprintf(stderr, "llama-bench: benchmark %d/%d: %s run %d/%d\n", number, count, what, i + 1, command.repeats);
    }
}

int main(int argc, char ** argv) {
    static struct test tests[TESTS];
    static struct model models[VALUES];
    parse(argc, argv);
    set_defaults();
    log_errors_only();
    const int count = plan_tests(tests, models);
    print_head(stdout, command.format);
    print_head(stderr, command.error_format);
    for (int i = 0; i < count; i++) {
        if (!load(&models[tests[i].model - models], tests[i].path)) {
            return 1;
        }
        if (command.shows_progress) {
            tell_runs(&tests[i], i + 1, count);
        }
        run_test(&tests[i], 1.0 / count);
        print_test(stdout, command.format, &tests[i], i == 0);
        print_test(stderr, command.error_format, &tests[i], i == 0);
    }
    print_foot(stdout, command.format);
    print_foot(stderr, command.error_format);
    return 0;
}
