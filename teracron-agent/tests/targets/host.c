/* A C program that loads a plugin in C++ only when it is told to go on. */
#include "log.h"
#include <dlfcn.h>
#include <stdlib.h>

NOINLINE int leaf(int x) { KEEP(x); return x + 1; }

NOINLINE int through(void (*callback)(int), int x) {
    int y = leaf(x);
    callback(x);
    return y + leaf(y);
}

int main(int argc, char **argv) {
    (void)argc;
    log_start();
    void *plugin = dlopen(argv[1], RTLD_NOW);
    if (!plugin) abort();
    int (*guarded)(int (*)(void (*)(int), int), int) = (int (*)(int (*)(void (*)(int), int), int))dlsym(plugin, "guarded");
    for (int i = 0; i < 20; i++) guarded(through, i & 1);
    log_finish();
    return 0;
}
