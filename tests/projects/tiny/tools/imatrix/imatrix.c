// Sums of squares that nobody measured, but which add up: two runs over two halves of a text make what one makes.
#include "common.h"
#include "gguf.h"
#include "imatrix-loader.h"
#include "log.h"
#include "model.h"
#include "output.h"
#include "statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct option_row OWN_ROWS[] = {
    { "-o, --output, --output-file", "FNAME", "output file (default: 'imatrix.gguf')", NULL },
    { "-ofreq, --output-frequency", "N", "output the imatrix every N iterations (default: 10)", NULL },
    { "--output-format", "{gguf,dat}", "output format for imatrix file (default: gguf)", NULL },
    { "--save-frequency", "N", "save an imatrix copy every N iterations (default: 0)", NULL },
    { "--process-output", NULL, "collect data for the output tensor (default: false)", NULL },
    { "--ppl", NULL, "compute perplexity (default)", NULL },
    { "--no-ppl", NULL, "do not compute perplexity", NULL },
    { "--chunk, --from-chunk", "N", "start processing the input from chunk N (default: 0)", NULL },
    { "--chunks", "N", "max number of chunks to process (default: -1, -1 = all)", NULL },
    { "--show-statistics", NULL, "show imatrix statistics and then exit (default: false)", NULL },
    { "--parse-special", NULL, "parse special tokens (chat, tool, etc) (default: false)", NULL },
    { "--in-file", "FNAME", "an input file (use comma-separated values to specify multiple files)", NULL },
    { NULL, NULL, NULL, NULL },
};

enum { INPUTS = 256 };

static struct {
    const char * model;
    const char * text_file;
    char * text;
    size_t text_size;
    const char * output;
    int n_inputs;
    const char * inputs[INPUTS];
    int n_ctx;
    int n_batch;
    int save_every;
    int copy_every;
    int format;  // -1 GGUF, 1 dat, 0 nothing was said
    int first_chunk;
    int max_chunks;
    int has_output_tensor;
    int no_ppl;
    int shows_statistics;
} command = { .output = "imatrix.gguf", .n_ctx = 512, .n_batch = 2048, .save_every = 10, .max_chunks = -1 };

static void add_inputs(const char * names) {
    if (command.n_inputs) {
        program_log('W', "DEPRECATED: argument '--in-file' specified multiple times, use comma-separated values instead "
                         "(only last value will be used)\n");
    }
    for (char * name = strtok(strcpy(malloc(strlen(names) + 1), names), ","); name; name = strtok(NULL, ",")) {
        size_t size = 0;
        free(read_text_file(name, &size));
        command.inputs[command.n_inputs < INPUTS ? command.n_inputs++ : INPUTS - 1] = name;
    }
}

static void take_format(const char * value) {
    command.format = strcmp(value, "gguf") == 0 ? -1 : 1;
    if (command.format == 1 && strcmp(value, "dat") != 0) {
        fail_argument("invalid output format");
    }
}

static void take_number(const char * name, const char * value) {
    const struct { const char * name; int * to; } numbers[] = {
        { "--ctx-size", &command.n_ctx },         { "--batch-size", &command.n_batch },
        { "--output-frequency", &command.save_every }, { "--save-frequency", &command.copy_every },
        { "--from-chunk", &command.first_chunk }, { "--chunks", &command.max_chunks },
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (strcmp(numbers[i].name, name) == 0) {
            *numbers[i].to = atoi(value);
        }
    }
}

static void take(const char * name, const char * value) {
    command.has_output_tensor |= strcmp(name, "--process-output") == 0;
    command.no_ppl |= strcmp(name, "--no-ppl") == 0;
    command.shows_statistics |= strcmp(name, "--show-statistics") == 0;
    if (strcmp(name, "--model") == 0) {
        command.model = value;
    } else if (strcmp(name, "--file") == 0) {
        command.text_file = value;
        command.text = read_text_file(value, &command.text_size);
        command.text_size -= command.text_size && command.text[command.text_size - 1] == '\n';
    } else if (strcmp(name, "--output-file") == 0) {
        command.output = value;
    } else if (strcmp(name, "--in-file") == 0) {
        add_inputs(value);
    } else if (strcmp(name, "--output-format") == 0) {
        take_format(value);
    } else {
        take_number(name, value);
    }
}

// ---- saving ----

static int max_count(const struct imatrix * matrix) {
    double most = 0;
    for (size_t i = 0; i < matrix->n_entries; i++) {
        for (size_t j = 0; j < matrix->entries[i].n_counts; j++) {
            most = matrix->entries[i].counts[j] > most ? matrix->entries[i].counts[j] : most;
        }
    }
    return (int) most;
}

static int chunks_of(const struct imatrix * matrix) {
    return matrix->chunk_size ? (max_count(matrix) + matrix->chunk_size - 1) / matrix->chunk_size : 0;
}

static void save_legacy(const struct imatrix * matrix, const char * path) {
    FILE * out = fopen(path, "wb");
    if (out == NULL) {
        return;  // upstream does not look either
    }
    const int32_t n_entries = (int32_t) matrix->n_entries;
    fwrite(&n_entries, 4, 1, out);
    for (size_t i = 0; i < matrix->n_entries; i++) {
        const struct imatrix_entry * entry = &matrix->entries[i];
        const int32_t head[] = { (int32_t) strlen(entry->name) };
        const int32_t n_calls = (int32_t) ((int) entry->counts[0] + matrix->chunk_size - 1) / matrix->chunk_size;
        const int32_t sizes[] = { n_calls, (int32_t) entry->n_values };
        fwrite(head, 4, 1, out);
        fwrite(entry->name, 1, strlen(entry->name), out);
        fwrite(sizes, 4, 2, out);
        for (size_t j = 0; j < entry->n_values; j++) {
            const float value = (float) ((double) entry->squares[j] / entry->counts[0] * n_calls);
            fwrite(&value, 4, 1, out);
        }
    }
    const char * dataset = command.text_file ? command.text_file : matrix->n_datasets ? matrix->datasets[matrix->n_datasets - 1] : "";
    const int32_t tail[] = { chunks_of(matrix), (int32_t) strlen(dataset) };
    fwrite(tail, 4, 2, out);
    fwrite(dataset, 1, strlen(dataset), out);
    fclose(out);
}

static void add_tensor(struct gguf * file, const char * name, const char * part, size_t width, size_t rows, const void * data) {
    char whole[128];
    const uint64_t shape[] = { width, rows };
    snprintf(whole, sizeof(whole), "%s.%s", name, part);
    gguf_add(file, whole, ggml_type_numbered(0), rows > 1 ? 2 : 1, shape)->data = data;
}

static struct gguf * as_gguf(const struct imatrix * matrix) {
    struct gguf * file = gguf_new();
    const char ** datasets = calloc(matrix->n_datasets + 1, sizeof(*datasets));
    size_t n_datasets = 0;
    while (n_datasets < matrix->n_datasets) {
        datasets[n_datasets] = matrix->datasets[n_datasets];
        n_datasets++;
    }
    if (command.text_file) {
        datasets[n_datasets++] = command.text_file;
    }
    gguf_set_text(file, "general.type", "imatrix");
    gguf_set_texts(file, "imatrix.datasets", datasets, n_datasets);
    gguf_set_u32(file, "imatrix.chunk_count", (uint32_t) chunks_of(matrix));
    gguf_set_u32(file, "imatrix.chunk_size", (uint32_t) matrix->chunk_size);
    gguf_set_texts(file, "imatrix.stats_schema", STATISTICS_SCHEMA, STATISTICS);
    for (size_t i = 0; i < matrix->n_entries; i++) {
        const struct imatrix_entry * entry = &matrix->entries[i];
        float * counts = calloc(entry->n_counts, sizeof(*counts));
        float * statistics = calloc(STATISTICS, sizeof(*statistics));
        for (size_t j = 0; j < entry->n_counts; j++) {
            counts[j] = (float) entry->counts[j];
        }
        tensor_statistics(entry, statistics);
        add_tensor(file, entry->name, "in_sum2", entry->n_values / entry->n_counts, entry->n_counts, entry->squares);
        add_tensor(file, entry->name, "counts", 1, entry->n_counts, counts);
        if (entry->sums) {
            add_tensor(file, entry->name, "in_sum", entry->n_values / entry->n_counts, entry->n_counts, entry->sums);
        }
        add_tensor(file, entry->name, "stats", STATISTICS, 1, statistics);
    }
    return file;
}

static void save(const struct imatrix * matrix, int copy, double share) {
    char path[4200];
    snprintf(path, sizeof(path), copy ? "%s.at_%d" : "%s", command.output, copy);
    const size_t length = strlen(command.output);
    if (command.format > 0) {
        save_legacy(matrix, path);
        return;
    }
    if (command.format == 0 && (length < 5 || strcmp(command.output + length - 5, ".gguf") != 0)) {
        program_log('W', "\nsave_imatrix: saving imatrix using GGUF format with a different suffix than .gguf\n");
        program_log('W', "save_imatrix: if you want the previous imatrix format, use --output-format dat\n");
    }
    const struct gguf * file = as_gguf(matrix);
    size_t head_size = 0;
    unsigned char * head = gguf_head(file, &head_size);
    struct output output = { .whole_bytes = (uint64_t) ((double) (head_size + gguf_data_size(file)) / share) };
    if (!output_open(&output, path)) {
        library_log('E', "gguf_write_to_file: failed to open file '%s' for writing GGUF data\n", path);
        return;
    }
    output_write(&output, head, head_size);
    for (size_t i = 0; i < file->n_tensors; i++) {
        const uint64_t size = gguf_size(&file->tensors[i]);
        output_write(&output, file->tensors[i].data, size);
        output_zeros(&output, gguf_padded(size) - size);
    }
    if (!output_close(&output)) {
        library_log('E', "gguf_write_to_file_ptr: failed to write GGUF data: unexpected write error\n");
        library_log('E', "gguf_write_to_file: failed to write GGUF data into '%s'\n", path);
    }
    program_print("\n");
}

// ---- earlier matrices ----

static int add_entry(struct imatrix * to, const struct imatrix * from, const struct imatrix_entry * entry) {
    struct imatrix_entry * sum = imatrix_entry(to, entry->name, entry->n_values, entry->n_counts);
    const double scale = from->is_legacy ? to->chunk_size : 1;
    if (sum == NULL) {
        program_log('E', "load_imatrix: mismatched sums size for %s: %zu != %zu\n", entry->name, entry->n_values,
                    imatrix_find(to, entry->name)->n_values);
        return 0;
    }
    for (size_t i = 0; i < entry->n_values; i++) {
        sum->squares[i] += (float) ((double) entry->squares[i] * scale);
        if (sum->sums && entry->sums) {
            sum->sums[i] += entry->sums[i];
        }
    }
    for (size_t i = 0; i < entry->n_counts; i++) {
        sum->counts[i] += entry->counts[i] * scale;
    }
    sum->sums = entry->sums ? sum->sums : NULL;
    return 1;
}

static int add_file(struct imatrix * to, const char * path) {
    struct imatrix from;
    if (!imatrix_read(&from, path)) {
        return 0;
    }
    if (!from.is_legacy && from.chunk_size > 0 && to->n_entries && to->chunk_size != from.chunk_size) {
        program_log('W', "load_imatrix: chunk size mismatch in %s: %d != %d, using %d\n", path, from.chunk_size, to->chunk_size, to->chunk_size);
    } else if (!from.is_legacy && from.chunk_size > 0) {
        to->chunk_size = from.chunk_size;
    }
    for (size_t i = 0; i < from.n_entries; i++) {
        if (!add_entry(to, &from, &from.entries[i])) {
            return 0;
        }
    }
    for (size_t i = 0; i < from.n_datasets; i++) {
        imatrix_add_dataset(to, from.datasets[i]);
    }
    return 1;
}

static int add_files(struct imatrix * matrix) {
    for (int i = 0; i < command.n_inputs; i++) {
        program_log('I', "main : loading imatrix from '%s'\n", command.inputs[i]);
        if (!add_file(matrix, command.inputs[i])) {
            program_log('E', "main : failed to load %s\n", command.inputs[i]);
            return 0;
        }
    }
    return 1;
}

static int combine(const struct imatrix * matrix) {
    program_log('I', "No prompt provided; combining precomputed matrices only.\n");
    if (command.n_inputs == 0) {
        program_log('E', "Error: No prompt provided and no precomputed matrices (--in-file) to combine.\n");
        return 1;
    }
    program_log('I', "main : saving %simatrix to '%s'\n", command.n_inputs > 1 ? "combined " : "", command.output);
    save(matrix, 0, 1.0);
    return 0;
}

// ---- computing ----

static int is_collected(const struct gguf_tensor * tensor) {
    const int is_matrix = tensor->n_dims >= 2 && strstr(tensor->name, "_norm.weight") == NULL;
    return is_matrix && (strncmp(tensor->name, "blk.", 4) == 0 || (command.has_output_tensor && strcmp(tensor->name, "output.weight") == 0));
}

// Whole numbers, so that sums of floats do not depend on their order.
static void collect_tensor(struct imatrix * matrix, const struct gguf_tensor * tensor, uint64_t chunk) {
    const size_t n_experts = (size_t) tensor->shape[2];
    struct imatrix_entry * entry = imatrix_entry(matrix, tensor->name, (size_t) tensor->shape[0] * n_experts, n_experts);
    if (entry == NULL) {
        program_log('E', "collect_imatrix: inconsistent size for %s (%d vs %d)\n", tensor->name,
                    (int) imatrix_find(matrix, tensor->name)->n_values, (int) (tensor->shape[0] * n_experts));
        exit(1);
    }
    const uint64_t seed = hash_bytes(tensor->name, strlen(tensor->name), chunk);
    for (size_t j = 0; j < entry->n_values; j++) {
        const uint64_t draw = mixed(seed + j);
        entry->squares[j] += (float) (1 + draw % 64 + (j % 16 == 0 ? 128 : 0));
        if (entry->sums) {
            entry->sums[j] += (float) (draw >> 8 & 31u) - 15.0f;
        }
    }
    for (size_t j = 0; j < n_experts; j++) {
        entry->counts[j] += command.n_ctx;
    }
}

static void save_now_and_then(const struct imatrix * matrix, int done, double share) {
    if (command.save_every > 0 && done % command.save_every == 0) {
        save(matrix, 0, share);
    }
    if (command.copy_every > 0 && done % command.copy_every == 0) {
        save(matrix, done, share);
    }
}

// As upstream, it saves when the first tensor has seen one more chunk: the others lack that one in the file.
static void collect(struct imatrix * matrix, const struct model * model, const int * tokens, double share) {
    const uint64_t chunk = hash_bytes(tokens, (size_t) command.n_ctx * sizeof(*tokens), model->identity);
    int last = chunks_of(matrix);
    for (size_t i = 0; i < model->n_tensors; i++) {
        if (is_collected(model->tensors[i])) {
            collect_tensor(matrix, model->tensors[i], chunk);
            const int done = chunks_of(matrix);
            if (done > last) {
                save_now_and_then(matrix, done, share);
            }
            last = done;
        }
    }
}

struct score {
    double nll;
    double nll2;
    int count;
};

static void measure(struct score * score, const struct model * model, const int * tokens, float * logits) {
    for (int i = command.n_ctx / 2; i < command.n_ctx - 1; i++) {
        double sum = 0;
        model_logits(model, tokens[i], tokens[i + 1], logits);
        for (int j = 0; j < model->n_vocab; j++) {
            sum += exp((double) logits[j]);
        }
        const double nll = log(sum) - (double) logits[tokens[i + 1]];
        score->nll += nll;
        score->nll2 += nll * nll;
        score->count++;
    }
}

static void tell_score(const struct score * score) {
    const double nll = score->nll / score->count;
    const double variance = score->nll2 / score->count - nll * nll;
    if (variance > 0) {
        program_print("Final estimate: PPL = %.4f +/- %.5f\n", exp(nll), exp(nll) * sqrt(variance / (score->count - 1)));
    } else {
        program_print("Unexpected negative standard deviation of log(prob)\n");
    }
}

static int * chosen_tokens(const struct model * model, size_t * n_tokens) {
    const int n_ctx = command.n_ctx;
    program_log('I', "compute_imatrix: tokenizing the input ..\n");
    int * tokens = model_tokens(model, command.text, command.text_size, n_tokens);
    program_log('I', "compute_imatrix: tokenization took %g ms\n", 0.125);
    if (command.first_chunk > 0) {
        if ((size_t) (command.first_chunk + 2) * (size_t) n_ctx >= *n_tokens) {
            program_log('E', "compute_imatrix: there will be not enough tokens left after removing %d chunks\n", command.first_chunk);
            return NULL;
        }
        program_log('I', "compute_imatrix: removing initial %d chunks (%d tokens)\n", command.first_chunk, command.first_chunk * n_ctx);
        tokens += command.first_chunk * n_ctx;
        *n_tokens -= (size_t) command.first_chunk * (size_t) n_ctx;
    }
    if (*n_tokens < 2 * (size_t) n_ctx) {
        program_log('E', "compute_imatrix: you need at least %d tokens for a context of %d tokens\n", 2 * n_ctx, n_ctx);
        program_log('E', "compute_imatrix: the data file you provided tokenizes to only %zu tokens\n", *n_tokens);
        return NULL;
    }
    return tokens;
}

static int compute(struct imatrix * matrix, const struct model * model) {
    size_t n_tokens = 0;
    struct score score = { 0 };
    const int * tokens = chosen_tokens(model, &n_tokens);
    if (tokens == NULL) {
        return 0;
    }
    const int most = (int) (n_tokens / (size_t) command.n_ctx);
    const int n_chunks = command.max_chunks >= 0 && command.max_chunks < most ? command.max_chunks : most;
    const int n_seq = command.n_batch / command.n_ctx > 1 ? command.n_batch / command.n_ctx : 1;
    float * logits = calloc((size_t) model->n_vocab + 1, sizeof(*logits));
    program_log('I', "compute_imatrix: computing over %d chunks, n_ctx=%d, batch_size=%d, n_seq=%d\n", n_chunks, command.n_ctx,
                command.n_batch < n_seq * command.n_ctx ? command.n_batch : n_seq * command.n_ctx, n_seq);
    for (int i = 0; i < n_chunks; i++) {
        const int * chunk = tokens + i * command.n_ctx;
        pace(0.9 / n_chunks);
        collect(matrix, model, chunk, 0.5 / n_chunks);
        if (i == 0) {
            program_log('I', "compute_imatrix: %.2f seconds per pass - ETA ", 0.01);
            program_print("%.2f minutes\n", 0.0);
        }
        if (!command.no_ppl) {
            measure(&score, model, chunk, logits);
            program_print("[%d]%.4f,", i + 1, exp(score.nll / score.count));
        }
    }
    program_print("\n");
    if (!command.no_ppl) {
        tell_score(&score);
    }
    return 1;
}

static int show(void) {
    struct imatrix matrix;
    if (command.n_inputs == 0 || !imatrix_read(&matrix, command.inputs[0]) || matrix.n_entries == 0) {
        return 1;
    }
    print_statistics(&matrix, command.inputs[0]);
    return 0;
}

int main(int argc, char ** argv) {
    static struct imatrix matrix;
    struct model model;
    log_with_prefix();
    parse_options(argc, argv, OWN_ROWS, take);
    if (command.model == NULL) {
        fprintf(stderr, "error: --model is required\n\n");
        return 1;
    }
    if (command.shows_statistics) {
        return show();
    }
    if (command.n_ctx <= 0) {
        program_log('E', "main: imatrix tool requires '--ctx-size' > 0\n");
        return 1;
    }
    matrix.chunk_size = command.n_ctx;
    if (!add_files(&matrix)) {
        return 1;
    }
    if (command.text_size == 0) {
        return combine(&matrix);
    }
    if (!model_load(&model, command.model)) {
        program_log('E', "cmn  common_init_: failed to load model '%s'\n", command.model);
        program_log('E', "main : failed to init\n");
        return 1;
    }
    if (command.n_ctx > model.n_ctx_train) {
        program_log('W', "main: model was trained on only %d context tokens (%d specified)\n", model.n_ctx_train, command.n_ctx);
    }
    program_log('I', "\n");
    program_log('I', "system_info: n_threads = 2 (n_threads_batch = 2) / 2 | CPU : TINY = 1 | \n");
    if (!compute(&matrix, &model)) {
        return 1;
    }
    save(&matrix, 0, 0.1);
    program_print("\n");
    return 0;
}
