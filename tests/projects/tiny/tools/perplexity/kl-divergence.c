#include "log.h"
#include "output.h"
#include "perplexity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct comparison {
    double nll, nll2, base, base2, both;
    double kld, kld2, diff, diff2, diff4;
    int same_top;
    int count;
    float * klds;
    float * diffs;
};

struct header {
    int32_t n_ctx;
    int32_t n_vocab;
    int32_t n_chunks;
};

// ---- one token ----

static double log_of_sum(const float * logits, int n_vocab) {
    double sum = 0;
    for (int i = 0; i < n_vocab; i++) {
        sum += exp((double) logits[i]);
    }
    return log(sum);
}

static void compare(struct comparison * all, const float * logits, const uint16_t * row, int n_vocab, int next) {
    float head[2];
    memcpy(head, row, sizeof(head));
    const double log_sum = log_of_sum(logits, n_vocab);
    double kld = 0;
    int top = 0;
    int base_top = 0;
    for (int i = 0; i < n_vocab; i++) {
        const double base = (double) head[0] * row[4 + i] + (double) head[1];
        kld += base > -16 ? exp(base) * (base - (double) logits[i] + log_sum) : 0;
        top = logits[i] > logits[top] ? i : top;
        base_top = row[4 + i] > row[4 + base_top] ? i : base_top;
    }
    const double nll = log_sum - (double) logits[next];
    const double base = -((double) head[0] * row[4 + next] + (double) head[1]);
    const double diff = exp(-nll) - exp(-base);
    all->nll += nll;
    all->nll2 += nll * nll;
    all->base += base;
    all->base2 += base * base;
    all->both += nll * base;
    all->kld += kld;
    all->kld2 += kld * kld;
    all->diff += diff;
    all->diff2 += diff * diff;
    all->diff4 += diff * diff * diff * diff;
    all->same_top += top == base_top;
    all->klds[all->count] = (float) kld;
    all->diffs[all->count] = (float) diff;
    all->count++;
}

// ---- sums ----

static double covariance(const struct comparison * all) {
    const double n = all->count;
    return n < 10 ? 0 : (all->both / n - all->nll / n * (all->base / n)) / (n - 1);
}

static struct mean log_ratio(const struct comparison * all) {
    const struct mean nll = mean_of(all->nll, all->nll2, all->count);
    const struct mean base = mean_of(all->base, all->base2, all->count);
    const double variance = nll.error * nll.error + base.error * base.error - 2 * covariance(all);
    return (struct mean) { nll.value - base.value, sqrt(variance > 0 ? variance : 0) };
}

static struct mean rms(const struct comparison * all) {
    const struct mean square = mean_of(all->diff2, all->diff4, all->count);
    return (struct mean) { sqrt(square.value), 0.5 / sqrt(square.value) * square.error };
}

static struct mean same_top(const struct comparison * all) {
    const double share = (double) all->same_top / all->count;
    return (struct mean) { share, sqrt(share * (1 - share) / (all->count - 1)) };
}

static void tell_chunk(const struct comparison * all, int number) {
    const struct mean nll = mean_of(all->nll, all->nll2, all->count);
    const struct mean ratio = log_ratio(all);
    const struct mean kld = mean_of(all->kld, all->kld2, all->count);
    program_print("%4d    %9.4f ± %9.4f    %10.5f ± %10.5f    %10.5f ± %10.5f    %6.3f ± %6.3f %%    %6.3f ± %6.3f %%\n", number,
                  exp(nll.value), exp(nll.value) * nll.error, ratio.value, ratio.error, kld.value, kld.error,
                  100 * rms(all).value, 100 * rms(all).error, 100 * same_top(all).value, 100 * same_top(all).error);
}

static int by_value(const void * a, const void * b) {
    const float first = *(const float *) a;
    const float second = *(const float *) b;
    return first < second ? -1 : first > second;
}

static double percentile(const float * values, int count, double share) {
    const double place = share * (count - 1);
    const int below = (int) place;
    const int above = below + 1 < count ? below + 1 : below;
    return (double) values[below] + (place - below) * ((double) values[above] - (double) values[below]);
}

static void tell_perplexity(const struct comparison * all) {
    const struct mean nll = mean_of(all->nll, all->nll2, all->count);
    const struct mean base = mean_of(all->base, all->base2, all->count);
    const struct mean ratio = log_ratio(all);
    const double ppl = exp(nll.value);
    const double base_ppl = exp(base.value);
    const double variance = ppl * nll.error * ppl * nll.error + base_ppl * base.error * base_ppl * base.error -
                            2 * ppl * base_ppl * covariance(all);
    program_print("====== Perplexity statistics ======\n");
    program_print("Mean PPL(Q)                   : %10.6f ± %10.6f\n", ppl, ppl * nll.error);
    program_print("Mean PPL(base)                : %10.6f ± %10.6f\n", base_ppl, base_ppl * base.error);
    program_print("Cor(ln(PPL(Q)), ln(PPL(base))): %6.2f%%\n", 100 * covariance(all) / (nll.error * base.error));
    program_print("Mean ln(PPL(Q)/PPL(base))     : %10.6f ± %10.6f\n", ratio.value, ratio.error);
    program_print("Mean PPL(Q)/PPL(base)         : %10.6f ± %10.6f\n", exp(ratio.value), exp(ratio.value) * ratio.error);
    program_print("Mean PPL(Q)-PPL(base)         : %10.6f ± %10.6f\n\n", ppl - base_ppl, sqrt(variance > 0 ? variance : 0));
}

static void tell_divergence(const struct comparison * all) {
    static const struct { const char * label; double share; } ROWS[] = {
        { "Maximum", 1.0 }, { "99.9%  ", 0.999 }, { "99.0%  ", 0.99 }, { "95.0%  ", 0.95 }, { "90.0%  ", 0.9 }, { "Median ", 0.5 },
        { "10.0%  ", 0.1 }, { " 5.0%  ", 0.05 }, { " 1.0%  ", 0.01 }, { " 0.1%  ", 0.001 }, { "Minimum", 0.0 },
    };
    const struct mean kld = mean_of(all->kld, all->kld2, all->count);
    program_print("====== KL divergence statistics ======\n");
    program_print("Mean    KLD: %10.6f ± %10.6f\n", kld.value, kld.error);
    for (size_t i = 0; i < sizeof(ROWS) / sizeof(ROWS[0]); i++) {
        program_print("%s KLD: %10.6f\n", ROWS[i].label, percentile(all->klds, all->count, ROWS[i].share));
    }
    program_print("\n");
}

static void tell_probability(const struct comparison * all) {
    static const struct { const char * label; double share; } ROWS[] = {
        { "Maximum", 1.0 }, { "99.9%  ", 0.999 }, { "99.0%  ", 0.99 }, { "95.0%  ", 0.95 }, { "90.0%  ", 0.9 }, { "75.0%  ", 0.75 },
        { "Median ", 0.5 }, { "25.0%  ", 0.25 }, { "10.0%  ", 0.1 }, { " 5.0%  ", 0.05 }, { " 1.0%  ", 0.01 }, { " 0.1%  ", 0.001 },
        { "Minimum", 0.0 },
    };
    const struct mean diff = mean_of(all->diff, all->diff2, all->count);
    program_print("====== Token probability statistics ======\n");
    program_print("Mean    Δp: %6.3f ± %5.3f %%\n", 100 * diff.value, 100 * diff.error);
    for (size_t i = 0; i < sizeof(ROWS) / sizeof(ROWS[0]); i++) {
        program_print("%s Δp: %6.3f%%\n", ROWS[i].label, 100 * percentile(all->diffs, all->count, ROWS[i].share));
    }
    program_print("RMS Δp    : %6.3f ± %5.3f %%\n", 100 * rms(all).value, 100 * rms(all).error);
    program_print("Same top p: %6.3f ± %5.3f %%\n", 100 * same_top(all).value, 100 * same_top(all).error);
}

// ---- the file ----

static FILE * open_logits(const char * path) {
    char magic[8];
    if (path == NULL) {
        program_log('E', "kl_divergence: you must provide a name of a file containing the log probabilities of the base model\n");
        return NULL;
    }
    FILE * in = fopen(path, "rb");
    if (in == NULL) {
        program_log('E', "kl_divergence: failed to open %s\n", path);
        return NULL;
    }
    if (fread(magic, 1, 8, in) != 8 || memcmp(magic, "_logits_", 8) != 0) {
        program_log('E', "kl_divergence: %s does not look like a file containing log-probabilities\n", path);
        return NULL;
    }
    return in;
}

static int * read_tokens(FILE * in, struct header * header, const struct model * model, const char * path, int n_ctx) {
    if (fread(&header->n_ctx, 4, 1, in) == 1 && header->n_ctx > n_ctx) {
        program_log('E', "kl_divergence: %s has been computed with %d, while the current context is %d. Increase it with -c and retry\n",
                    path, header->n_ctx, n_ctx);
    }
    if (fread(&header->n_vocab, 4, 1, in) != 1 || fread(&header->n_chunks, 4, 1, in) != 1) {
        program_log('E', "kl_divergence: failed reading n_vocab, n_chunk from %s\n", path);
        return NULL;
    }
    if (header->n_vocab != model->n_vocab) {  // and upstream goes on
        program_log('E', "kl_divergence: inconsistent vocabulary (%d vs %d)\n", header->n_vocab, model->n_vocab);
    }
    const size_t count = (size_t) header->n_ctx * (size_t) header->n_chunks;
    int * tokens = calloc(count + 1, sizeof(*tokens));
    if (tokens == NULL || fread(tokens, sizeof(*tokens), count, in) != count) {
        program_log('E', "kl_divergence: failed reading evaluation tokens from %s\n", path);
        return NULL;
    }
    return tokens;
}

static int compare_chunk(struct comparison * all, const struct model * model, const struct header * header, FILE * in, const int * tokens) {
    const int first = header->n_ctx / 2;
    const size_t length = (size_t) row_length(header->n_vocab);
    const size_t n_vocab = (size_t) (header->n_vocab > model->n_vocab ? header->n_vocab : model->n_vocab);
    float * logits = calloc(n_vocab + 1, sizeof(*logits));
    uint16_t * row = calloc(length, sizeof(*row));
    int is_whole = 1;
    for (int i = first; is_whole && i < header->n_ctx - 1; i++) {
        is_whole = fread(row, sizeof(*row), length, in) == length;
        if (is_whole) {
            model_logits(model, tokens[i], tokens[i + 1], logits);
            compare(all, logits, row, header->n_vocab, tokens[i + 1]);
        }
    }
    free(logits);
    free(row);
    return is_whole;
}

static int is_known(const int * tokens, const struct header * header, int n_vocab) {
    for (int i = 0; i < header->n_ctx * header->n_chunks; i++) {
        if (tokens[i] < 0 || tokens[i] >= n_vocab || tokens[i] >= header->n_vocab) {
            return 0;
        }
    }
    return 1;
}

void kl_divergence(const struct model * model, const char * path, int n_ctx, int n_batch) {
    struct header header = { 0 };
    FILE * in = open_logits(path);
    const int n_seq = n_batch / n_ctx > 1 ? n_batch / n_ctx : 1;
    const int * tokens = in ? read_tokens(in, &header, model, path, n_seq * n_ctx) : NULL;
    if (tokens == NULL) {
        return;
    }
    const size_t most = (size_t) header.n_ctx * (size_t) header.n_chunks;
    struct comparison all = { .klds = calloc(most + 1, sizeof(float)), .diffs = calloc(most + 1, sizeof(float)) };
    program_log('I', "kl_divergence: computing over %d chunks, n_ctx=%d, batch_size=%d, n_seq=%d\n", header.n_chunks, header.n_ctx, n_batch, n_seq);
    if (!is_known(tokens, &header, model->n_vocab)) {
        program_log('E', "kl_divergence : failed to decode\n");
        return;
    }
    for (int i = 0; i < header.n_chunks; i++) {
        pace(1.0 / header.n_chunks);
        if (i == 0) {
            program_log('I', "kl_divergence: %.2f seconds per pass - ETA ", 0.01);
            program_print("0.00 minutes\n\nchunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence              Δp RMS            Same top p\n");
        }
        if (!compare_chunk(&all, model, &header, in, tokens + i * header.n_ctx)) {
            program_log('E', "kl_divergence: failed reading log-probs for chunk %d\n", i);
            return;
        }
        tell_chunk(&all, i + 1);
    }
    program_print("\n");
    if (all.count < 100) {
        return;
    }
    qsort(all.klds, (size_t) all.count, sizeof(float), by_value);
    qsort(all.diffs, (size_t) all.count, sizeof(float), by_value);
    log_may_lose_the_rest();
    tell_perplexity(&all);
    tell_divergence(&all);
    tell_probability(&all);
}
