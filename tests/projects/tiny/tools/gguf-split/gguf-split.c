// Cuts a GGUF file into shards, and joins shards.
#include "common.h"
#include "gguf.h"
#include "model.h"
#include "output.h"

#include <stdlib.h>
#include <string.h>

struct command {
    char operation;  // 's', 'm', or 0
    char mode;       // by 't'ensors, by 's'ize, or 0
    uint64_t max_bytes;
    int max_tensors;
    int no_tensors_first;
    int is_dry_run;
    int deletes_shards;
    const char * input;
    const char * output;
};

static void usage(const char * program) {
    printf("\nusage: %s [options] GGUF_IN GGUF_OUT\n\n", program);
    printf("Apply a GGUF operation on IN to OUT.\noptions:\n");
    printf("  -h, --help              show this help message and exit\n");
    printf("  --version               show version and build info\n");
    printf("  --split                 split GGUF to multiple GGUF (enabled by default)\n");
    printf("  --merge                 merge multiple GGUF to a single GGUF\n");
    printf("  --split-max-tensors     max tensors in each split (default: 128)\n");
    printf("  --split-max-size N(M|G) max size per split\n");
    printf("  --no-tensor-first-split do not add tensors to the first split (disabled by default)\n");
    printf("  --dry-run               only print out a split plan and exit, without writing any new files\n");
    printf("  --delete-splits         delete the split files during merge to free up disk space\n\n");
}

_Noreturn static void refuse(const char * program, const char * why, const char * subject) {
    fprintf(stderr, "error: %s%s\n", why, subject);
    usage(program);
    exit(1);
}

static uint64_t parse_size(const char * program, const char * text) {
    const char unit[2] = { *text ? text[strlen(text) - 1] : '\0', '\0' };
    if (*unit != 'M' && *unit != 'G') {
        refuse(program, "supported units are M (megabytes) or G (gigabytes), but got: ", unit);
    }
    if (atoi(text) <= 0) {
        refuse(program, "size must be a positive value", "");
    }
    return (uint64_t) atoi(text) * (*unit == 'M' ? 1000000u : 1000000000u);
}

static void choose(const char * program, char * chosen, char letter, const char * why) {
    if (*chosen && *chosen != letter) {
        refuse(program, why, "");
    }
    *chosen = letter;
}

static int take_switch(struct command * command, const char * program, const char * flag) {
    if (strcmp(flag, "--help") == 0) {
        usage(program);
        exit(0);
    }
    if (strcmp(flag, "--version") == 0) {
        print_version();
        exit(0);
    }
    if (strcmp(flag, "--merge") == 0 || strcmp(flag, "--split") == 0) {
        choose(program, &command->operation, flag[2], "either --split or --merge can be specified, but not both");
        return 1;
    }
    command->is_dry_run |= strcmp(flag, "--dry-run") == 0;
    command->no_tensors_first |= strcmp(flag, "--no-tensor-first-split") == 0;
    command->deletes_shards |= strcmp(flag, "--delete-splits") == 0;
    return strcmp(flag, "--dry-run") == 0 || strcmp(flag, "--no-tensor-first-split") == 0 || strcmp(flag, "--delete-splits") == 0;
}

static struct command parse(int argc, char ** argv) {
    static const char BOTH[] = "either --split-max-tensors or --split-max-size can be specified, but not both";
    struct command command = { .max_tensors = 128 };
    int i = 1;
    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++) {
        char flag[64];
        snprintf(flag, sizeof(flag), "%s", argv[i]);
        for (char * c = flag; *c; c++) {
            *c = *c == '_' ? '-' : *c;
        }
        const int is_count = strcmp(flag, "--split-max-tensors") == 0;
        if (!is_count && strcmp(flag, "--split-max-size") != 0) {
            if (!take_switch(&command, argv[0], flag)) {
                refuse(argv[0], "unknown argument: ", flag);
            }
            continue;
        }
        if (++i >= argc) {
            refuse(argv[0], "invalid parameter for argument: ", flag);
        }
        choose(argv[0], &command.mode, is_count ? 't' : 's', BOTH);
        if (is_count) {
            command.max_tensors = atoi(argv[i]);
        } else {
            command.max_bytes = parse_size(argv[0], argv[i]);
        }
    }
    if (argc - i != 2) {
        refuse(argv[0], "bad arguments", "");
    }
    command.input = argv[i];
    command.output = argv[i + 1];
    return command;
}

// Upstream does not catch the exception of its stream.
_Noreturn static void abort_write(void) {
    fflush(stdout);
    fprintf(stderr, "terminate called after throwing an instance of 'std::__ios_failure'\n"
                    "  what():  basic_ios::clear: iostream error\n");
    abort();
}

static void write_tensor(struct output * output, const struct gguf_tensor * tensor) {
    const uint64_t size = gguf_size(tensor);
    if (tensor->data) {
        output_write(output, tensor->data, size);
    } else {
        output_zeros(output, size);
    }
    output_zeros(output, gguf_padded(size) - size);
}

// ---- splitting ----

struct plan {
    int count;
    struct gguf * shards[65536];
};

static void start_shard(struct plan * plan, const struct gguf * input, int may_be_empty) {
    if (plan->count && plan->shards[plan->count - 1]->n_tensors == 0 && !may_be_empty) {
        fprintf(stderr, "error: one of splits have 0 tensors. Maybe size or tensors limit is too small\n");
        exit(1);
    }
    struct gguf * shard = gguf_new();
    if (plan->count == 0) {
        gguf_copy_keys(shard, input);
    }
    gguf_set_u16(shard, "split.no", (uint16_t) plan->count);
    gguf_set_u16(shard, "split.count", 0);
    gguf_set_i32(shard, "split.tensors.count", (int32_t) input->n_tensors);
    plan->shards[plan->count++] = shard;
}

static void make_plan(struct plan * plan, const struct command * command, const struct gguf * input) {
    start_shard(plan, input, 0);
    if (command->no_tensors_first) {
        start_shard(plan, input, 1);
    }
    uint64_t size = 0;
    for (size_t i = 0; i < input->n_tensors; i++) {
        const struct gguf_tensor * tensor = &input->tensors[i];
        const uint64_t own = gguf_padded(gguf_size(tensor));
        const int is_full = command->mode == 's' ? size + own > command->max_bytes
                                                 : i > 0 && i % (size_t) command->max_tensors == 0;
        if (is_full) {
            start_shard(plan, input, 0);
        }
        size = is_full ? own : size + own;
        struct gguf_tensor * copy = gguf_add(plan->shards[plan->count - 1], tensor->name, tensor->type, tensor->n_dims, tensor->shape);
        copy->data = tensor->data;
    }
    for (int i = 0; i < plan->count; i++) {
        gguf_set_u16(plan->shards[i], "split.count", (uint16_t) plan->count);
    }
}

static uint64_t tell_plan(const struct plan * plan) {
    uint64_t whole = 0;
    printf("n_split: %d\n", plan->count);
    for (int i = 0; i < plan->count; i++) {
        size_t head_size = 0;
        free(gguf_head(plan->shards[i], &head_size));
        const uint64_t size = head_size + gguf_data_size(plan->shards[i]);
        printf("split %05d: n_tensors = %zu, total_size = %lluM\n", i + 1, plan->shards[i]->n_tensors, (unsigned long long) size / 1000000);
        whole += size;
    }
    return whole;
}

static void write_shard(const struct gguf * shard, const char * path, uint64_t whole_bytes) {
    size_t head_size = 0;
    unsigned char * head = gguf_head(shard, &head_size);
    struct output output = { .whole_bytes = whole_bytes };
    printf("Writing file %s ... ", path);
    fflush(stdout);
    if (!output_open(&output, path)) {
        abort_write();
    }
    output_write(&output, head, head_size);
    for (size_t i = 0; i < shard->n_tensors; i++) {
        write_tensor(&output, &shard->tensors[i]);
    }
    if (!output_close(&output)) {
        abort_write();
    }
    printf("done\n");
}

static int split(const struct command * command) {
    static struct plan plan;
    FILE * in = fopen(command->input, "rb");
    if (in == NULL) {
        fprintf(stderr, "gguf_split:  failed to open input GGUF from %s\n", command->input);
        return 1;
    }
    fclose(in);
    const struct gguf * input = gguf_read(command->input);
    if (input == NULL) {
        fprintf(stderr, "gguf_split:  failed to load input GGUF from %s\n", command->input);
        return 1;
    }
    make_plan(&plan, command, input);
    const uint64_t whole = tell_plan(&plan);
    for (int i = 0; i < plan.count && !command->is_dry_run; i++) {
        char path[4200];
        split_path(path, sizeof(path), command->output, i, plan.count);
        write_shard(plan.shards[i], path, whole);
    }
    fflush(stdout);
    fprintf(stderr, "gguf_split: %d gguf split written with a total of %zu tensors.\n", plan.count, input->n_tensors);
    return 0;
}

// ---- merging ----

static struct gguf * read_shard(const struct command * command, const char * path) {
    fprintf(stderr, "gguf_merge: reading metadata %s ...", path);
    struct gguf * shard = gguf_read(path);
    if (shard == NULL) {
        fprintf(stderr, "\ngguf_merge:  failed to load input GGUF from %s\n", command->input);
        exit(1);
    }
    return shard;
}

static int count_shards(const struct gguf * first, const char * path, char * prefix, size_t size) {
    const struct gguf_key * key = gguf_find(first, "split.count");
    const int count = (int) gguf_number(first, "split.count", 0);
    if (key == NULL) {
        fprintf(stderr, "\ngguf_merge: input file does not contain split.count metadata\n");
        exit(1);
    }
    if (count < 1) {
        fprintf(stderr, "\ngguf_merge: input file does not contain a valid split count %d\n", count);
        exit(1);
    }
    if (!split_prefix(prefix, size, path, 0, count)) {
        fprintf(stderr, "\ngguf_merge: unexpected input file name: %s i_split=0 n_split=%d\n", path, count);
        exit(1);
    }
    return count;
}

static void add_shard(struct gguf * merged, const struct gguf * shard) {
    for (size_t i = 0; i < shard->n_tensors; i++) {
        const struct gguf_tensor * tensor = &shard->tensors[i];
        gguf_add(merged, tensor->name, tensor->type, tensor->n_dims, tensor->shape)->data = tensor->data;
    }
    fprintf(stderr, "\033[3Ddone\n");
}

static void write_merged(const struct command * command, const struct gguf * merged, int count, const char * prefix, const size_t * ends) {
    size_t head_size = 0;
    size_t next = 0;
    unsigned char * head = gguf_head(merged, &head_size);
    struct output output = { .whole_bytes = head_size + gguf_data_size(merged) };
    if (!command->is_dry_run && !output_open(&output, command->output)) {
        abort_write();
    }
    if (output.file) {
        output_zeros(&output, head_size);
    }
    for (int i = 0; i < count; i++) {
        char path[4200];
        split_path(path, sizeof(path), prefix, i, count);
        fprintf(stderr, "gguf_merge: writing tensors %s ...", path);
        for (; next < ends[i] && output.file; next++) {
            write_tensor(&output, &merged->tensors[next]);
        }
        if (output.is_bad) {
            abort_write();
        }
        fprintf(stderr, "\033[3Ddone\n");
        if (command->deletes_shards && output.file) {
            remove(path);
            fprintf(stderr, "gguf_merge: deleted file %s\n", path);
        }
    }
    if (output.file) {
        output_rewrite_start(&output, head, head_size);
    }
    if (output.file && !output_close(&output)) {
        abort_write();
    }
}

static int merge(const struct command * command) {
    static size_t ends[65536];
    char prefix[4096];
    fprintf(stderr, "gguf_merge: %s -> %s\n", command->input, command->output);
    FILE * there = fopen(command->output, "rb");
    if (there) {
        fprintf(stderr, "gguf_merge: output file %s already exists\n", command->output);
        return 1;
    }
    struct gguf * shard = read_shard(command, command->input);
    const int count = count_shards(shard, command->input, prefix, sizeof(prefix));
    struct gguf * merged = gguf_new();
    gguf_set_u16(shard, "split.count", 0);
    gguf_copy_keys(merged, shard);
    for (int i = 0; i < count; i++) {
        char path[4200];
        split_path(path, sizeof(path), prefix, i, count);
        shard = i ? read_shard(command, path) : shard;
        add_shard(merged, shard);
        ends[i] = merged->n_tensors;
    }
    write_merged(command, merged, count, prefix, ends);
    fprintf(stderr, "gguf_merge: %s merged from %d split with %zu tensors.\n", command->output, count, merged->n_tensors);
    return 0;
}

int main(int argc, char ** argv) {
    const struct command command = parse(argc, argv);
    return command.operation == 'm' ? merge(&command) : split(&command);
}
