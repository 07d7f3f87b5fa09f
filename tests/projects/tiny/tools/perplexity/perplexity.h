#pragma once

#include "model.h"

#include <stdint.h>

// A row of a logits file: scale and smallest log-probability as floats, then one number for each token of the vocabulary.
int row_length(int n_vocab);  // in uint16_t

// The mean of count numbers and how sure it is.
struct mean {
    double value;
    double error;
};
struct mean mean_of(double sum, double sum_of_squares, int count);

// Compares a model with the logits of another. Upstream ends with 0 whatever happens here.
void kl_divergence(const struct model * model, const char * logits_file, int n_ctx, int n_batch);
