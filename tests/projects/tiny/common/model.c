#include "model.h"

#include "log.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char * const ARCHITECTURES[] = { "llama", "qwen2", "gemma3", "clip", NULL };  // as src/llama-arch.cpp

static const char * text_of(const char * format, ...) {
    char * text = malloc(8192);
    va_list values;
    va_start(values, format);
    vsnprintf(text, 8192, format, values);
    va_end(values);
    return text;
}

void split_path(char * path, size_t size, const char * prefix, int number, int count) {
    snprintf(path, size, "%s-%05d-of-%05d.gguf", prefix, number + 1, count);
}

int split_prefix(char * prefix, size_t size, const char * path, int number, int count) {
    char ending[64];
    split_path(ending, sizeof(ending), "", number, count);
    const size_t length = strlen(path);
    const size_t cut = strlen(ending);
    if (length <= cut || strcmp(path + length - cut, ending) != 0 || length - cut >= size) {
        return 0;
    }
    snprintf(prefix, size, "%.*s", (int) (length - cut), path);
    return 1;
}

// ---- reading ----

static const char * add_tensors(struct model * model, struct gguf * file, int shard) {
    model->tensors = realloc(model->tensors, (model->n_tensors + file->n_tensors + 1) * sizeof(*model->tensors));
    for (size_t i = 0; i < file->n_tensors; i++) {
        struct gguf_tensor * tensor = &file->tensors[i];
        for (size_t j = 0; j < model->n_tensors; j++) {
            if (strcmp(model->tensors[j]->name, tensor->name) == 0) {
                return text_of("invalid model: tensor '%s' is duplicated", tensor->name);
            }
        }
        if (tensor->data == NULL) {
            return text_of(
                "tensor '%s' data is not within the file bounds, model is corrupted or incomplete", tensor->name);
        }
        tensor->shard = shard;
        model->tensors[model->n_tensors++] = tensor;
        model->n_weights += gguf_weights(tensor);
        model->n_bytes += gguf_size(tensor);
    }
    return NULL;
}

static const char * add_shards(struct model * model, int count) {
    char prefix[4096];
    const int first = (int) gguf_number(model->head, "split.no", 0);
    if (first != 0) {
        return text_of("illegal split file idx: %d (file: %s), model must be loaded with the first split", first, model->path);
    }
    if (!split_prefix(prefix, sizeof(prefix), model->path, 0, count)) {
        return text_of("invalid split file name: %s", model->path);
    }
    for (int i = 1; i < count; i++) {
        char path[4200];
        split_path(path, sizeof(path), prefix, i, count);
        struct gguf * shard = gguf_read(path);
        if (shard == NULL) {
            return text_of("llama_model_loader: failed to load GGUF split from %s", path);
        }
        if (gguf_number(shard, "split.no", -1) != i) {
            return text_of("invalid split file idx: %d (file: %s), expected %d", (int) gguf_number(shard, "split.no", -1), path, i);
        }
        const char * why = add_tensors(model, shard, i);
        if (why) {
            return why;
        }
    }
    const int wanted = (int) gguf_number(model->head, "split.tensors.count", 0);
    if (wanted != (int) model->n_tensors) {
        return text_of("corrupted model: %d tensors expected but %d found", wanted, (int) model->n_tensors);
    }
    model->n_shards = count;
    library_log('I', "llama_model_loader: additional %d GGUFs metadata loaded.\n", count - 1);
    return NULL;
}

static int layer_of(const char * name) {
    int layer = -1;
    return sscanf(name, "blk.%d.", &layer) == 1 ? layer : -1;
}

static int by_layer(const void * a, const void * b) {
    const char * first = (*(struct gguf_tensor * const *) a)->name;
    const char * second = (*(struct gguf_tensor * const *) b)->name;
    const int layers = layer_of(first) - layer_of(second);
    return layers ? layers : strcmp(first, second);
}

static void describe(const struct model * model) {
    library_log('I', "llama_model_loader: loaded meta data with %zu key-value pairs and %zu tensors from %s (version GGUF V3 (latest))\n",
                model->head->n_keys, model->n_tensors, model->path);
    library_log('I', "llama_model_loader: Dumping metadata keys/values. Note: KV overrides do not apply in this output.\n");
    for (size_t i = 0; i < model->head->n_keys; i++) {
        const struct gguf_key * key = &model->head->keys[i];
        library_log('I', "llama_model_loader: - kv %3zu: %42s %-16s = %s\n", i, key->name, gguf_type_shown(key), gguf_shown(key));
    }
    for (int number = 0; number < 64; number++) {
        const struct ggml_type * type = ggml_type_numbered(number);
        int count = 0;
        for (size_t i = 0; i < model->n_tensors; i++) {
            count += model->tensors[i]->type == type;
        }
        if (count) {
            library_log('I', "llama_model_loader: - type %4s: %4d tensors\n", type->name, count);
        }
    }
}

static const char * read_arch(struct model * model) {
    model->arch = gguf_text(model->head, "general.architecture");
    for (const char * const * known = ARCHITECTURES; *known; known++) {
        if (strcmp(*known, model->arch) == 0) {
            return NULL;
        }
    }
    return text_of("unknown model architecture: '%s'", model->arch);
}

static const char * read_sizes(struct model * model) {
    const struct { const char * name; int * to; } wanted[] = {
        { "context_length", &model->n_ctx_train }, { "block_count", &model->n_layers },
    };
    model->n_vocab = (int) gguf_count(model->head, "tokenizer.ggml.tokens");
    model->file_type = (int) gguf_number(model->head, "general.file_type", -1);
    for (size_t i = 0; i < 2 && strcmp(model->arch, "clip") != 0; i++) {
        char key[256];
        snprintf(key, sizeof(key), "%s.%s", model->arch, wanted[i].name);
        *wanted[i].to = (int) gguf_number(model->head, key, -1);
        if (*wanted[i].to < 0) {
            return text_of("key not found in model: %s", key);
        }
    }
    return NULL;
}

// ---- what it is made of ----

uint64_t mixed(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
    return value ^ (value >> 31);
}

uint64_t hash_bytes(const void * data, size_t size, uint64_t seed) {
    const unsigned char * bytes = data;
    uint64_t hash = seed ^ 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ bytes[i]) * 0x100000001b3ULL;
    }
    return mixed(hash);
}

uint32_t tensor_mark(const struct gguf_tensor * tensor) {
    uint32_t mark = 0;
    if (ggml_is_quantized(tensor->type)) {
        memcpy(&mark, tensor->data, 4);
        return mark;
    }
    const uint64_t weights = gguf_weights(tensor);
    for (unsigned i = 0; i < 32 && i < weights; i++) {
        const size_t last = (size_t) (i + 1) * (size_t) tensor->type->block_bytes - 1;
        mark |= (uint32_t) (tensor->data[last] >> 7) << i;
    }
    return mark;
}

static void characterise(struct model * model) {
    double weights = 0;
    double bits = 0;
    for (size_t i = 0; i < model->n_tensors; i++) {
        const struct gguf_tensor * tensor = model->tensors[i];
        const uint64_t name = hash_bytes(tensor->name, strlen(tensor->name), 0);
        if (tensor->n_dims < 2) {
            continue;
        }
        model->identity += mixed(name ^ tensor_mark(tensor));
        model->variant += mixed(name + (uint64_t) tensor->type->number * 977);
        weights += (double) gguf_weights(tensor);
        bits += (double) gguf_size(tensor) * 8;
    }
    model->error = weights > 0 ? 3.0 * pow(2.0, -0.62 * bits / weights) : 1.0;
    if (gguf_find(model->head, "quantize.imatrix.entries_count")) {
        model->error *= 0.85;
    }
}

const char * model_read(struct model * model, const char * path) {
    memset(model, 0, sizeof(*model));
    model->path = path;
    model->n_shards = 1;
    model->head = gguf_read(path);
    if (model->head == NULL) {
        return text_of("llama_model_loader: failed to load model from %s", path);
    }
    const char * why = add_tensors(model, model->head, 0);
    const int count = (int) gguf_number(model->head, "split.count", 0);
    if (why == NULL && count > 1) {
        why = add_shards(model, count);
    }
    if (why) {
        return why;
    }
    qsort(model->tensors, model->n_tensors, sizeof(*model->tensors), by_layer);
    describe(model);
    why = read_arch(model);
    if (why == NULL) {
        why = read_sizes(model);
    }
    characterise(model);
    return why;
}

int model_load(struct model * model, const char * path) {
    const char * why = model_read(model, path);
    for (size_t i = 0; why == NULL && i <= model->n_tensors; i++) {
        if (i == model->n_tensors) {
            why = "missing tensor 'token_embd.weight'";
        } else if (strcmp(model->tensors[i]->name, "token_embd.weight") == 0) {
            break;
        }
    }
    if (why == NULL && model->n_vocab == 0) {
        why = "error loading model vocabulary: cannot find tokenizer vocab in model file";
    }
    if (why) {
        const char * part = strncmp(why, "key not found", 13) == 0 ? "error loading model hyperparameters: " : "";
        library_log('E', "llama_model_load: error loading model: %s%s\n", part, why);
        library_log('E', "llama_model_load_from_file_impl: failed to load model\n");
    }
    return why == NULL;
}

// ---- a language model of sorts ----

int * model_tokens(const struct model * model, const char * text, size_t size, size_t * count) {
    *count = size / 4;
    int * tokens = calloc(*count + 1, sizeof(*tokens));
    for (size_t i = 0; i < *count; i++) {
        tokens[i] = (int) (hash_bytes(text + 4 * i, 4, 1) % (uint64_t) model->n_vocab);
    }
    return tokens;
}

// Between -1 and 1.
static double chance(uint64_t seed) {
    return (double) (int64_t) mixed(seed) / 9223372036854775808.0;
}

// A few tokens are much likelier than the others, as in language. The next one gets about a ninth of the probability,
// more or less. A quant takes some of that away and disturbs the others by as much as its error, nearly in the same
// direction as other quants of the model, so that a larger error is worse in every way.
void model_logits(const struct model * model, int token, int next, float * logits) {
    const uint64_t here = mixed(model->identity ^ (uint64_t) (token + 1) * 0x9e3779b97f4a7c15ULL);
    const uint64_t own = mixed(here ^ model->variant);
    const uint64_t common = mixed(here + 1);
    double sum = 0;
    for (int i = 0; i < model->n_vocab; i++) {
        const double rank = ((double) (mixed(here + (uint64_t) i) >> 11) + 1) / 9007199254740992.0;
        const double noise = 0.9 * chance(common + (uint64_t) i) + 0.1 * chance(own + (uint64_t) i);
        const double logit = -0.8 * log(rank);
        sum += exp(logit);
        logits[i] = (float) (logit + model->error * noise);
    }
    if (next >= 0 && next < model->n_vocab) {
        const double luck = 2.5 * chance(here ^ (uint64_t) (next + 7));
        logits[next] = (float) (log(sum / 9.0) + luck - 0.5 * model->error);
    }
}
