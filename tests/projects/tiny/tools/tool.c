// The programs whose work no test needs: those that answer say that Paris is the capital, the others nothing.
#include "common.h"
#include "llama.h"

#include <stdio.h>
#include <string.h>

static const struct option_row OWN_ROWS[] = {
    { "-H, --host", "HOST", "host to bind to (default: 127.0.0.1)", NULL },
    { "--port", "PORT", "port to bind to (default: 50052)", NULL },
    { "-no-cnv, --no-conversation", NULL, "do not run in conversation mode", NULL },
    { "-st, --single-turn", NULL, "run conversation for a single turn only, then exit when done", NULL },
    { NULL, NULL, NULL, NULL },
};

static const char * model_file = NULL;

static void take(const char * name, const char * value) {
    if (strcmp(name, "--model") == 0) {
        model_file = value;
    }
}

int main(int argc, char ** argv) {
    parse_options(argc, argv, OWN_ROWS, take);
    FILE * model = model_file ? fopen(model_file, "rb") : NULL;
    if (model == NULL) {
        fprintf(stderr, "%s: error: failed to load model '%s'\n", TINY_TOOL, model_file ? model_file : "");
        return 1;
    }
    fclose(model);
    if (strcmp(TINY_TOOL, "llama-completion") == 0 || strcmp(TINY_TOOL, "llama-cli") == 0) {
        printf("%s\n", llama_answer());
    }
    return 0;
}
