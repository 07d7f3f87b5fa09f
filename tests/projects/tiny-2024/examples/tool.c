#include "common.h"

int main(int argc, char ** argv) {
    return run_tool(TINY_TOOL, argc, argv);
}
