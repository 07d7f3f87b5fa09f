#include "common.h"

int main(int argc, char ** argv) {
    return llama_quantize(argc, argv);
}
