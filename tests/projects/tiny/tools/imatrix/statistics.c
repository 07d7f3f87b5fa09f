#include "statistics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char * const STATISTICS_SCHEMA[STATISTICS] = {
    "sum_sq", "mean", "elements", "std_deviation", "skewness", "kurtosis", "gain", "h_norm", "l2_dist", "cossim", "pearson",
    "covariance",
};

static double square_at(const struct imatrix_entry * entry, size_t i) {
    const double count = entry->counts[i / (entry->n_values / entry->n_counts)];
    return count > 0 ? (double) entry->squares[i] / count : 0.0;
}

static double value_at(const struct imatrix_entry * entry, size_t i) {
    const double count = entry->counts[i / (entry->n_values / entry->n_counts)];
    if (entry->sums == NULL) {
        return square_at(entry, i);
    }
    return count > 0 ? (double) entry->sums[i] / count : 0.0;
}

void tensor_statistics(const struct imatrix_entry * entry, float * found) {
    const double n = (double) entry->n_values;
    double energy = 0, mean = 0, second = 0, third = 0, fourth = 0, entropy = 0;
    for (size_t i = 0; i < entry->n_values; i++) {
        energy += square_at(entry, i);
        mean += value_at(entry, i) / n;
    }
    for (size_t i = 0; i < entry->n_values; i++) {
        const double off = value_at(entry, i) - mean;
        const double share = energy > 0 ? square_at(entry, i) / energy : 0;
        second += off * off / n;
        third += off * off * off / n;
        fourth += off * off * off * off / n;
        entropy -= share > 1e-10 ? share * log2(share) : 0;
    }
    const float all[STATISTICS] = {
        (float) energy, (float) mean, (float) n, (float) sqrt(second), (float) (third / (second * sqrt(second))),
        (float) (fourth / (second * second) - 3), NAN, (float) (100 * entropy / log2(n)), NAN, NAN, NAN, NAN,
    };
    memcpy(found, all, sizeof(all));
}

static int layer_of(const char * name) {
    int layer = -1;
    return sscanf(name, "blk.%d.", &layer) == 1 ? layer : -1;
}

static void print_tensors(const struct imatrix * matrix, int layer, double * sum) {
    for (size_t i = 0; i < matrix->n_entries; i++) {
        float s[STATISTICS];
        if (layer_of(matrix->entries[i].name) != layer) {
            continue;
        }
        tensor_statistics(&matrix->entries[i], s);
        *sum += (double) s[0];
        char label[16] = "-";
        if (layer >= 0) {
            snprintf(label, sizeof(label), "%d", layer);
        }
        printf("%6s | %-40s | %10.4f%10.4f%12.4f%12.4f%8.2f%% | %14.4f%8.2f | %12.4f%10.4f%10.4f\n", label,
               matrix->entries[i].name, (double) s[1], (double) s[3], (double) s[4], (double) s[5], (double) s[7],
               (double) s[0], (double) s[6], (double) s[8], (double) s[10], (double) s[11]);
    }
}

void print_statistics(const struct imatrix * matrix, const char * path) {
    int last = -1;
    for (size_t i = 0; i < matrix->n_entries; i++) {
        const int layer = layer_of(matrix->entries[i].name);
        last = layer > last ? layer : last;
    }
    double * sums = calloc((size_t) last + 2, sizeof(*sums));
    printf("\nComputing tensor statistics for %s (%zu tensors)\n", path, matrix->n_entries);
    printf("\n%6s | %-40s | %10s%10s%12s%12s%9s | %17s%8s | %12s%10s%10s\n", "Layer", "Tensor", "Mean", "StdDev", "Skew", "Kurt",
           "H Norm", "∑ E[A²]", "Gain", "L2 Dist", "PCC", "Cov");
    for (int i = 0; i < 165; i++) {
        putchar('-');
    }
    putchar('\n');
    for (int layer = 0; layer <= last; layer++) {
        print_tensors(matrix, layer, &sums[layer]);
    }
    print_tensors(matrix, -1, &sums[last + 1]);
    printf("\nComputing layer statistics for %s (%d layers)\n\n", path, last + 1);
    printf("%6s | %17s%8s | %12s%9s%9s%12s\n", "Layer", "∑ E[A²]", "Gain", "L2 Dist", "CosSim", "PCC", "Cov");
    for (int i = 0; i < 76; i++) {
        putchar('-');
    }
    putchar('\n');
    for (int layer = 0; layer <= last; layer++) {
        const double gain = layer > 0 ? sqrt(sums[layer] / sums[layer - 1]) : (double) NAN;
        printf("%6d | %14.4f%8.2f | %12.4f%9.4f%9.4f%12.4f\n", layer, sums[layer], gain, (double) NAN, (double) NAN,
               (double) NAN, (double) NAN);
    }
    putchar('\n');
}
