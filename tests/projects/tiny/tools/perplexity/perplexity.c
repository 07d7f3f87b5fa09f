// Perplexity of a language model that is a table of made-up logits; the files of logits are upstream's.
#include "perplexity.h"

#include "common.h"
#include "log.h"
#include "output.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct option_row OWN_ROWS[] = {
    { "--chunks", "N", "max number of chunks to process (default: -1, -1 = all)", NULL },
    { "--kl-divergence", NULL, "computes KL-divergence to logits provided via --kl-divergence-base", NULL },
    { "--save-all-logits, --kl-divergence-base", "FNAME", "set logits file", NULL },
    { "--ppl-stride", "N", "stride for perplexity calculation (default: 0)", NULL },
    { "--ppl-output-type", "<0|1>", "output type for perplexity calculation (default: 0)", NULL },
    { NULL, NULL, NULL, NULL },
};

static struct {
    const char * model;
    char * text;
    size_t text_size;
    const char * logits_file;
    int compares;
    int n_ctx;
    int n_batch;
    int max_chunks;
} command = { .n_ctx = 512, .n_batch = 2048, .max_chunks = -1 };

static void take(const char * name, const char * value) {
    if (strcmp(name, "--model") == 0) {
        command.model = value;
    } else if (strcmp(name, "--file") == 0) {
        command.text = read_text_file(value, &command.text_size);
        command.text_size -= command.text_size && command.text[command.text_size - 1] == '\n';
    } else if (strcmp(name, "--prompt") == 0) {
        command.text = (char *) value;
        command.text_size = strlen(value);
    } else if (strcmp(name, "--kl-divergence-base") == 0) {
        command.logits_file = value;
    } else if (strcmp(name, "--kl-divergence") == 0) {
        command.compares = 1;
    } else if (strcmp(name, "--ctx-size") == 0) {
        command.n_ctx = atoi(value);
    } else if (strcmp(name, "--batch-size") == 0) {
        command.n_batch = atoi(value);
    } else if (strcmp(name, "--chunks") == 0) {
        command.max_chunks = atoi(value);
    }
}

int row_length(int n_vocab) {
    return 2 * ((n_vocab + 1) / 2) + 4;
}

struct mean mean_of(double sum, double sum_of_squares, int count) {
    struct mean mean = { 0, 0 };
    if (count > 0) {
        mean.value = sum / count;
        const double variance = sum_of_squares / count - mean.value * mean.value;
        mean.error = variance > 0 && count > 10 ? sqrt(variance / (count - 1)) : 0;
    }
    return mean;
}

// ---- one text, one model ----

struct score {
    double nll;
    double nll2;
    int count;
};

static double log_of_sum(const float * logits, int n_vocab) {
    double sum = 0;
    for (int i = 0; i < n_vocab; i++) {
        sum += exp((double) logits[i]);
    }
    return log(sum);
}

static void pack_row(const float * logits, int n_vocab, double log_sum, uint16_t * row) {
    float most = logits[0];
    float least = logits[0];
    for (int i = 1; i < n_vocab; i++) {
        most = logits[i] > most ? logits[i] : most;
        least = logits[i] < least ? logits[i] : least;
    }
    least = least > most - 16 ? least : most - 16;
    const float head[2] = { (most - least) / 65535.0f, least - (float) log_sum };
    memcpy(row, head, sizeof(head));
    for (int i = 0; i < n_vocab; i++) {
        row[4 + i] = head[0] > 0 && logits[i] > least ? (uint16_t) lroundf((logits[i] - least) / head[0]) : 0;
    }
}

static void run_chunk(const struct model * model, const int * tokens, struct score * score, uint16_t * rows) {
    static float * logits = NULL;
    logits = logits ? logits : calloc((size_t) model->n_vocab + 1, sizeof(*logits));
    const int first = command.n_ctx / 2;
    for (int i = first; i < command.n_ctx - 1; i++) {
        model_logits(model, tokens[i], tokens[i + 1], logits);
        const double log_sum = log_of_sum(logits, model->n_vocab);
        const double nll = log_sum - (double) logits[tokens[i + 1]];
        score->nll += nll;
        score->nll2 += nll * nll;
        score->count++;
        if (rows) {
            pack_row(logits, model->n_vocab, log_sum, rows + (i - first) * row_length(model->n_vocab));
        }
    }
}

static int begin_logits(struct output * output, const struct model * model, const int * tokens, int n_chunks, size_t chunk_bytes) {
    const int32_t sizes[] = { model->n_vocab, n_chunks };
    const size_t token_bytes = (size_t) n_chunks * (size_t) command.n_ctx * sizeof(*tokens);
    output->whole_bytes = token_bytes + (uint64_t) n_chunks * chunk_bytes;
    output_write(output, sizes, sizeof(sizes));
    output_write(output, tokens, token_bytes);
    return 1;
}

static void tell_score(const struct score * score) {
    const double nll = score->nll / score->count;
    const double variance = score->nll2 / score->count - nll * nll;
    program_print("\n");
    log_may_lose_the_rest();
    if (variance > 0) {
        program_log('I', "Final estimate: PPL = %.4f +/- %.5f\n", exp(nll), exp(nll) * sqrt(variance / (score->count - 1)));
    } else {
        program_log('E', "Unexpected negative standard deviation of log(prob)\n");
    }
}

static void run(const struct model * model, const int * tokens, int n_chunks, struct output * output) {
    struct score score = { 0 };
    const size_t rows = (size_t) (command.n_ctx - 1 - command.n_ctx / 2);
    const size_t chunk_bytes = rows * (size_t) row_length(model->n_vocab) * sizeof(uint16_t);
    uint16_t * packed = output->file ? calloc(1, chunk_bytes + 1) : NULL;
    if (packed) {
        begin_logits(output, model, tokens, n_chunks, chunk_bytes);
    }
    for (int i = 0; i < n_chunks; i++) {
        run_chunk(model, tokens + i * command.n_ctx, &score, packed);
        if (packed) {
            output_write(output, packed, chunk_bytes);
        } else {
            pace(1.0 / n_chunks);
        }
        if (i == 0) {
            program_log('I', "perplexity: %.2f seconds per pass - ETA ", 0.01);
            program_print("%.2f minutes\n", 0.0);
        }
        program_print("[%d]%.4f,", i + 1, exp(score.nll / score.count));
    }
    if (packed) {
        output_close(output);  // upstream does not look whether it was written
    }
    tell_score(&score);
}

static void perplexity(const struct model * model) {
    struct output output = { 0 };
    size_t n_tokens = 0;
    if (command.logits_file) {
        const int32_t n_ctx = command.n_ctx;
        if (!output_open(&output, command.logits_file)) {
            program_log('E', "perplexity: failed to open %s for writing\n", command.logits_file);
            return;
        }
        program_log('I', "perplexity: saving all logits to %s\n", command.logits_file);
        output_write(&output, "_logits_", 8);
        output_write(&output, &n_ctx, sizeof(n_ctx));
    }
    program_log('I', "perplexity: tokenizing the input ..\n");
    const int * tokens = model_tokens(model, command.text, command.text_size, &n_tokens);
    program_log('I', "perplexity: tokenization took %g ms\n", 0.125);
    if (n_tokens < 2 * (size_t) command.n_ctx) {
        program_log('E', "perplexity: you need at least %d tokens to evaluate perplexity with a context of %d\n", 2 * command.n_ctx, command.n_ctx);
        program_log('E', "perplexity: the data file you provided tokenizes to only %zu tokens\n", n_tokens);
        return;
    }
    const int most = (int) (n_tokens / (size_t) command.n_ctx);
    const int n_chunks = command.max_chunks >= 0 && command.max_chunks < most ? command.max_chunks : most;
    const int n_seq = command.n_batch / command.n_ctx > 1 ? command.n_batch / command.n_ctx : 1;
    program_log('I', "perplexity: calculating perplexity over %d chunks, n_ctx=%d, batch_size=%d, n_seq=%d\n", n_chunks,
                command.n_ctx, command.n_batch < n_seq * command.n_ctx ? command.n_batch : n_seq * command.n_ctx, n_seq);
    run(model, tokens, n_chunks, &output);
}

int main(int argc, char ** argv) {
    struct model model;
    log_with_prefix();
    parse_options(argc, argv, OWN_ROWS, take);
    if (command.model == NULL) {
        fprintf(stderr, "error: --model is required\n\n");
        return 1;
    }
    if (command.n_ctx <= 0) {
        program_log('E', "llama_perplexity: perplexity tool requires '--ctx-size' > 0\n");
        return 1;
    }
    if (!model_load(&model, command.model)) {
        program_log('E', "cmn  common_init_: failed to load model '%s'\n", command.model);
        program_log('E', "llama_perplexity: unable to load model\n");
        return 1;
    }
    if (command.n_ctx > model.n_ctx_train) {
        program_log('W', "llama_perplexity: model was trained on only %d context tokens (%d specified)\n", model.n_ctx_train, command.n_ctx);
    }
    program_log('I', "\n");
    program_log('I', "system_info: n_threads = 2 (n_threads_batch = 2) / 2 | CPU : TINY = 1 | \n");
    if (command.compares) {
        kl_divergence(&model, command.logits_file, command.n_ctx, command.n_batch);
    } else {
        perplexity(&model);
    }
    program_print("\n");
    return 0;
}
