/* What is mapped changes: a plugin is loaded, another program takes over. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((noinline)) int leaf(int x) { __asm__ volatile("" : "+r"(x)); return x + 1; }

static void wait_for_go(void) {
    char line[16];
    if (!fgets(line, sizeof line, stdin)) exit(0);
}

static void ready(void) {
    printf("ready %d\n", getpid());
    fflush(stdout);
    wait_for_go();
}

int main(int argc, char **argv) {
    (void)argc;
    setvbuf(stdin, NULL, _IONBF, 0);
    ready();
    if (!strcmp(argv[1], "exec")) {
        execl(argv[2], argv[2], "run", (char *)NULL);
        return 1;
    }
    int (*function)(int) = leaf;
    if (!strcmp(argv[1], "load")) {
        void *plugin = dlopen(argv[2], RTLD_NOW);
        if (!plugin) return 1;
        function = (int (*)(int))dlsym(plugin, "plugged");
        wait_for_go();
    }
    for (int i = 0; i < 20; i++) function(i);
    puts("done");
    fflush(stdout);
    wait_for_go();
    return 0;
}
