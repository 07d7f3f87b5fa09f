#include "llama.h"

#include <stdio.h>

int main(void) {
    return puts(llama_answer()) < 0;
}
