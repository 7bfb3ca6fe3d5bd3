/* Fibers: calls that end in another order than they began in, each open across a switch.
 * fibers FIBERS CALLS: prints, for each call, what it got and gave back. */
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>
#include <unistd.h>

enum { MOST = 64 };
static ucontext_t back, fibers[MOST];
static int current, ended;
static int order[MOST * 4096], told;

__attribute__((noinline)) int work(int number) {
    swapcontext(&fibers[current], &back);
    return -number - 1;
}

static void fiber(int calls) {
    int mine = current;
    for (int call = 0; call < calls; call++) {
        int number = mine * 10000 + call;
        if (work(number) == -number - 1) order[told++] = number;
    }
    ended++;
}

int main(int count, char **arguments) {
    (void)count;
    int many = atoi(arguments[1]), calls = atoi(arguments[2]);
    printf("ready %d\n", getpid());
    fflush(stdout);
    if (getchar() == EOF) return 1;
    for (int i = 0; i < many; i++) {
        getcontext(&fibers[i]);
        fibers[i].uc_stack.ss_sp = malloc(65536);
        fibers[i].uc_stack.ss_size = 65536;
        fibers[i].uc_link = &back;
        makecontext(&fibers[i], (void (*)(void))fiber, 1, calls);
    }
    /* Not round robin: fibers run ahead and fall behind. */
    for (unsigned state = 7, turn = 0; turn <= (unsigned)calls * 3; turn++)
        for (int i = 0; i < many; i++) {
            state = state * 1664525 + 1013904223;
            if (turn < (unsigned)calls && state >> 30 == 0) continue;
            static int turns[MOST];
            if (turns[i] > calls) continue;
            turns[i]++;
            current = i;
            swapcontext(&back, &fibers[i]);
        }
    for (int i = 0; i < told; i++) printf("%d\n", order[i]);
    printf("done\n");
    fflush(stdout);
    while (getchar() != EOF) {}
    return ended == many ? 0 : 3;
}
