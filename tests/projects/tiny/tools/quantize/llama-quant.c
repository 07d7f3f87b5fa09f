// Writes a quant: types and sizes as llama.cpp b11434 would, weights made of the bytes of the source.
#include "llama-quant.h"

#include "log.h"
#include "model.h"
#include "output.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char * const WRITE_FAILED = "basic_ios::clear: iostream error";

struct job {
    const struct quant_params * params;
    struct model model;
    struct quant_state state;
    struct gguf_tensor ** tensors;
    size_t n_tensors;
    const struct ggml_type ** types;
    int n_outputs;
    struct gguf ** outputs;
    struct gguf_tensor ** made;  // each tensor in its output
    int needs_matrix;
    uint64_t old_bytes;
    uint64_t new_bytes;
};

static const char * text_of(const char * format, ...) {
    char * text = malloc(1024);
    va_list values;
    va_start(values, format);
    vsnprintf(text, 1024, format, values);
    va_end(values);
    return text;
}

// ---- planning ----

static int by_place(const void * a, const void * b) {
    const struct gguf_tensor * first = *(struct gguf_tensor * const *) a;
    const struct gguf_tensor * second = *(struct gguf_tensor * const *) b;
    if (first->shard != second->shard) {
        return first->shard - second->shard;
    }
    return first->offset < second->offset ? -1 : first->offset > second->offset;
}

static int is_pruned(const struct quant_params * params, int layer) {
    for (int i = 0; i < params->n_pruned; i++) {
        if (params->pruned[i] == layer) {
            return 1;
        }
    }
    return 0;
}

static void renumber(const struct quant_params * params, struct gguf_tensor * tensor, int layer) {
    char renamed[64];
    int earlier = 0;
    for (int i = 0; i < layer; i++) {
        earlier += is_pruned(params, i);
    }
    if (earlier) {
        const char * rest = strchr(tensor->name + 4, '.');
        snprintf(renamed, sizeof(renamed), "blk.%d%s", layer - earlier, rest);
        library_log('I', "llama_model_quantize_impl: tensor %s remapped to %s\n", tensor->name, renamed);
        memcpy(tensor->name, renamed, sizeof(renamed));
    }
}

static void choose_tensors(struct job * job) {
    job->tensors = calloc(job->model.n_tensors + 1, sizeof(*job->tensors));
    for (size_t i = 0; i < job->model.n_tensors; i++) {
        struct gguf_tensor * tensor = job->model.tensors[i];
        int layer = -1;
        sscanf(tensor->name, "blk.%d.", &layer);
        if (layer >= 0 && is_pruned(job->params, layer)) {
            library_log('I', "llama_model_quantize_impl: pruning tensor %s\n", tensor->name);
            continue;
        }
        if (layer >= 0) {
            renumber(job->params, tensor, layer);
        }
        job->tensors[job->n_tensors++] = tensor;
    }
    if (job->params->keep_split) {
        qsort(job->tensors, job->n_tensors, sizeof(*job->tensors), by_place);
    }
}

static void start_state(struct job * job) {
    char key[256];
    struct quant_state * state = &job->state;
    state->params = job->params;
    state->n_layers = job->model.n_layers;
    state->is_tied = 1;
    snprintf(key, sizeof(key), "%s.attention.head_count", job->model.arch);
    const int heads = (int) gguf_number(job->model.head, key, 1);
    snprintf(key, sizeof(key), "%s.attention.head_count_kv", job->model.arch);
    const int kv_heads = (int) gguf_number(job->model.head, key, heads);
    state->heads_per_kv = kv_heads > 0 ? heads / kv_heads : 1;
    for (size_t i = 0; i < job->n_tensors; i++) {
        state->n_attn_v += is_attn_v(job->tensors[i]->name);
        state->is_tied &= strcmp(job->tensors[i]->name, "output.weight") != 0;
    }
}

static void set_override(struct gguf * output, const struct key_override * row) {
    const unsigned char truth = (unsigned char) row->whole;
    switch (row->type) {
        case GGUF_U32: gguf_set_u32(output, row->key, row->whole); break;
        case GGUF_F32: gguf_set(output, row->key, GGUF_F32, &row->real, 4); break;
        case GGUF_BOOL: gguf_set(output, row->key, GGUF_BOOL, &truth, 1); break;
        default: gguf_set_text(output, row->key, row->text); break;
    }
}

static void set_keys(struct job * job) {
    struct gguf * output = job->outputs[0];
    const int ftype = job->params->only_copy && job->model.file_type >= 0 ? job->model.file_type : job->params->ftype;
    gguf_copy_keys(output, job->model.head);
    gguf_set_u32(output, "general.quantization_version", 2);
    gguf_set_u32(output, "general.file_type", (uint32_t) ftype);
    gguf_remove(output, "split.no");
    gguf_remove(output, "split.count");
    gguf_remove(output, "split.tensors.count");
    for (int i = 0; i < job->params->n_keys; i++) {
        set_override(output, &job->params->keys[i]);
    }
    if (job->params->n_pruned) {
        char key[256];
        snprintf(key, sizeof(key), "%s.block_count", job->model.arch);
        gguf_set_u32(output, key, (uint32_t) (job->model.n_layers - job->params->n_pruned));
    }
}

static void make_outputs(struct job * job) {
    job->n_outputs = job->params->keep_split ? job->model.n_shards : 1;
    job->outputs = calloc((size_t) job->n_outputs, sizeof(*job->outputs));
    for (int i = 0; i < job->n_outputs; i++) {
        job->outputs[i] = gguf_new();
    }
    set_keys(job);
    for (int i = 0; i < job->n_outputs && job->n_outputs > 1; i++) {
        gguf_set_u16(job->outputs[i], "split.no", (uint16_t) i);
        gguf_set_u16(job->outputs[i], "split.count", (uint16_t) job->n_outputs);
        gguf_set_i32(job->outputs[i], "split.tensors.count", (int32_t) job->n_tensors);
    }
}

static const char * choose_types(struct job * job) {
    const struct quant_params * params = job->params;
    job->types = calloc(job->n_tensors + 1, sizeof(*job->types));
    job->made = calloc(job->n_tensors + 1, sizeof(*job->made));
    for (size_t i = 0; i < job->n_tensors; i++) {
        const struct gguf_tensor * tensor = job->tensors[i];
        const int may_change = tensor_may_change(params, tensor);
        job->types[i] = may_change ? tensor_type(&job->state, tensor) : tensor->type;
        if (job->types[i] == NULL) {
            return text_of("no tensor type fallback is defined for type %s", ftype_main(params->ftype)->name);
        }
        struct gguf * output = job->outputs[params->keep_split ? tensor->shard : 0];
        job->made[i] = gguf_add(output, tensor->name, job->types[i], tensor->n_dims, tensor->shape);
        if (params->matrix || !may_change || !tensor_needs_matrix(tensor->name, job->types[i], params->ftype)) {
            continue;
        }
        job->needs_matrix = 1;
        if (!params->dry_run) {
            library_log('E', "\n============================================================================\n"
                             " ERROR: this quantization requires an importance matrix!\n"
                             "        - offending tensor: %s\n        - target type: %s\n"
                             "============================================================================\n\n",
                        tensor->name, job->types[i]->name);
            return "this quantization requires an imatrix!";
        }
    }
    return NULL;
}

// ---- weights ----

static uint64_t source_seed(const struct job * job, const struct gguf_tensor * tensor) {
    uint64_t seed = hash_bytes(tensor->data, (size_t) gguf_size(tensor), 0);
    const struct imatrix_entry * entry = job->params->matrix ? imatrix_find(job->params->matrix, tensor->name) : NULL;
    return entry ? hash_bytes(entry->squares, entry->n_values * sizeof(float), seed) : seed;
}

static void fill(unsigned char * to, uint64_t size, uint64_t seed) {
    for (uint64_t i = 0; i < size; i += 8) {
        const uint64_t word = mixed(seed + i);
        memcpy(to + i, &word, (size_t) (size - i < 8 ? size - i : 8));
    }
}

// Signs stay those of the source, so that the mark of the tensor does.
static void make_plain(unsigned char * to, const struct ggml_type * type, const struct gguf_tensor * from, uint32_t mark) {
    const int width = type->block_bytes;
    for (uint64_t i = 0; i < gguf_weights(from); i++) {
        const uint64_t last = i * (uint64_t) width + (uint64_t) width - 1;
        unsigned sign = to[last] & 0x80u;
        if (!ggml_is_quantized(from->type)) {
            sign = from->data[(i + 1) * (uint64_t) from->type->block_bytes - 1] & 0x80u;
        } else if (i < 32) {
            sign = (mark >> i & 1u) << 7;
        }
        to[last] = (unsigned char) (sign | (type->number == 1 ? 0x2cu | (to[last] & 3u) : 0x3du));
    }
}

static unsigned char * made_weights(const struct job * job, const struct gguf_tensor * from, const struct gguf_tensor * made) {
    const uint64_t size = gguf_size(made);
    const uint32_t mark = tensor_mark(from);
    unsigned char * weights = malloc((size_t) size + 8);
    fill(weights, size, source_seed(job, from) ^ (uint64_t) made->type->number);
    if (ggml_is_quantized(made->type)) {
        for (uint64_t at = 0; at < size; at += (uint64_t) made->type->block_bytes) {
            memcpy(weights + at, &mark, 4);
        }
    } else {
        make_plain(weights, made->type, from, mark);
    }
    return weights;
}

// ---- writing ----

static double mib(uint64_t size) {
    return (double) size / 1024.0 / 1024.0;
}

static const char * matrix_trouble(const struct job * job, const struct gguf_tensor * tensor, const struct ggml_type * type) {
    if (job->params->matrix == NULL) {
        return NULL;
    }
    const struct imatrix_entry * entry = imatrix_find(job->params->matrix, tensor->name);
    const size_t wanted = (size_t) (tensor->shape[0] * tensor->shape[2]);
    if (entry && entry->n_values == wanted) {
        return NULL;
    }
    if (entry) {
        library_log('I', "\n====== llama_model_quantize_impl: imatrix size %d is different from tensor size %d for %s\n",
                    (int) entry->n_values, (int) wanted, tensor->name);
        return text_of("imatrix size %d is different from tensor size %d for %s", (int) entry->n_values, (int) wanted, tensor->name);
    }
    library_log('I', "\n====== llama_model_quantize_impl: did not find weights for %s\n", tensor->name);
    if (tensor_needs_matrix(tensor->name, type, job->params->ftype)) {
        library_log('E', "\n\n============================================================\n"
                         "Missing importance matrix for tensor %s in a very low-bit quantization\n"
                         "The result will be garbage, so bailing out\n"
                         "============================================================\n\n", tensor->name);
        return text_of("Missing importance matrix for tensor %s in a very low-bit quantization", tensor->name);
    }
    return NULL;
}

static const char * write_tensor(struct job * job, size_t index, struct output * output) {
    const struct gguf_tensor * tensor = job->tensors[index];
    const struct gguf_tensor * made = job->made[index];
    const uint64_t old_size = gguf_size(tensor);
    const uint64_t new_size = gguf_size(made);
    if (made->type == tensor->type) {
        library_log('I', "size = %8.3f MiB\n", mib(old_size));
        output_write(output, tensor->data, old_size);
    } else {
        const char * why = matrix_trouble(job, tensor, made->type);
        if (why) {
            return why;
        }
        if (ggml_is_quantized(tensor->type) && !job->params->allow_requantize) {
            return text_of("requantizing from type %s is disabled", tensor->type->name);
        }
        library_log('I', "converting to %s .. ", made->type->name);
        output_write(output, made_weights(job, tensor, made), new_size);
        if (!output->is_bad) {
            library_log('I', "size = %8.2f MiB -> %8.2f MiB\n", mib(old_size), mib(new_size));
        }
    }
    output_zeros(output, gguf_padded(new_size) - new_size);
    return output->is_bad ? WRITE_FAILED : NULL;
}

static void tell_size(struct job * job, size_t index) {
    const struct gguf_tensor * tensor = job->tensors[index];
    const struct gguf_tensor * made = job->made[index];
    if (made->type == tensor->type) {
        library_log('I', "size = %8.3f MiB\n", mib(gguf_size(made)));
        return;
    }
    library_log('I', "size = %8.2f MiB -> %8.2f MiB (%s)\n", mib(gguf_size(tensor)), mib(gguf_size(made)), made->type->name);
    job->needs_matrix |= tensor_needs_matrix(tensor->name, made->type, job->params->ftype);
}

static const char * open_output(struct job * job, struct output * output, const char * path, int number) {
    char shard[4200];
    size_t head_size = 0;
    snprintf(shard, sizeof(shard), "%s", path);
    if (job->params->keep_split) {
        split_path(shard, sizeof(shard), path, number, job->n_outputs);
    }
    if (!output_open(output, shard)) {
        return WRITE_FAILED;
    }
    free(gguf_head(job->outputs[number], &head_size));
    output_zeros(output, head_size);
    return output->is_bad ? WRITE_FAILED : NULL;
}

static const char * close_output(struct job * job, struct output * output, int number) {
    size_t head_size = 0;
    unsigned char * head = gguf_head(job->outputs[number], &head_size);
    output_rewrite_start(output, head, head_size);
    free(head);
    return output_close(output) ? NULL : WRITE_FAILED;
}

static void tell_tensor(const struct job * job, size_t index) {
    const struct gguf_tensor * tensor = job->tensors[index];
    library_log('I', "[%4zu/%4zu] %-36s - [%6llu, %6llu, %6llu, %6llu], type = %6s, ", index + 1, job->model.n_tensors, tensor->name,
                (unsigned long long) tensor->shape[0], (unsigned long long) tensor->shape[1],
                (unsigned long long) tensor->shape[2], (unsigned long long) tensor->shape[3], tensor->type->name);
}

static const char * write_all(struct job * job, const char * path) {
    struct output output = { 0 };
    int number = -1;
    const char * why = NULL;
    for (int i = 0; i < job->n_outputs; i++) {
        size_t head_size = 0;
        free(gguf_head(job->outputs[i], &head_size));
        output.whole_bytes += head_size + gguf_data_size(job->outputs[i]);
    }
    for (size_t i = 0; why == NULL && (i < job->n_tensors || number < 0); i++) {
        const int wanted = job->params->keep_split && i < job->n_tensors ? job->tensors[i]->shard : 0;
        if (wanted != number) {
            why = number >= 0 ? close_output(job, &output, number) : NULL;
            number = wanted;
            why = why ? why : open_output(job, &output, path, number);
        }
        if (why || i >= job->n_tensors) {
            continue;
        }
        tell_tensor(job, i);
        why = write_tensor(job, i, &output);
    }
    return why ? why : close_output(job, &output, number);
}

static void tell_sums(struct job * job) {
    const double weights = (double) job->model.n_weights;
    for (size_t i = 0; i < job->n_tensors; i++) {
        job->old_bytes += gguf_size(job->tensors[i]);
        job->new_bytes += gguf_size(job->made[i]);
    }
    library_log('I', "llama_model_quantize_impl: model size  = %8.2f MiB (%.2f BPW)\n", mib(job->old_bytes),
                (double) job->old_bytes * 8.0 / weights);
    library_log('I', "llama_model_quantize_impl: quant size  = %8.2f MiB (%.2f BPW)\n", mib(job->new_bytes),
                (double) job->new_bytes * 8.0 / weights);
    if (job->params->matrix == NULL && job->params->dry_run && job->needs_matrix) {
        library_log('W', "llama_model_quantize_impl: WARNING: dry run completed successfully, but actually completing "
                         "this quantization will require an imatrix!\n");
    }
    if (job->state.n_fallback) {
        library_log('W', "llama_model_quantize_impl: WARNING: %d of %zu tensor(s) required fallback quantization\n",
                    job->state.n_fallback, job->model.n_tensors);
    }
}

static const char * quantize(struct job * job, const char * input, const char * output) {
    const char * why = model_read(&job->model, input);
    if (why) {
        return why;
    }
    if (job->params->matrix) {
        library_log('I', "\nllama_model_quantize_impl: have importance matrix data with %zu entries\n", job->params->matrix->n_entries);
    }
    choose_tensors(job);
    start_state(job);
    make_outputs(job);
    why = choose_types(job);
    for (size_t i = 0; why == NULL && job->params->dry_run && i < job->n_tensors; i++) {
        tell_tensor(job, i);
        tell_size(job, i);
    }
    if (why == NULL && !job->params->dry_run) {
        why = write_all(job, output);
    }
    if (why == NULL) {
        tell_sums(job);
    }
    return why;
}

int llama_model_quantize(const char * input, const char * output, const struct quant_params * params) {
    struct job job = { .params = params };
    const char * why = quantize(&job, input, output);
    if (why) {
        library_log('E', "llama_model_quantize: failed to quantize: %s\n", why);
    }
    return why != NULL;
}
