#include "llama.h"

int main(void) {
    return llama_answer()[0] == '\0';
}
