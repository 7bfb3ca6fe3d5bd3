// Fibers: makecontext and swapcontext; a call is open on each of several stacks.
#include "target.h"
#include <ucontext.h>

static ucontext_t back, fibers[6];
static int current;
static long works, steps, sum;
static char stacks[6][65536];

PROBED int step(int i) { counted(&steps); return i ^ 5; }
PROBED int work(int i) {
    counted(&works);
    int before = step(i);
    swapcontext(&fibers[current], &back);
    return before + step(i + 1);
}
static void fiber(int calls) { for (int k = 0; k < calls; k++) sum += work(k); }
static int child_work(void) {
    int got = 0, right = 0;
    for (int i = 0; i < 10; i++) got += step(i), right += i ^ 5;
    return got == right ? 77 : 78;
}
int main(int count, char **arguments) {
    if (count > 1 && !strcmp(arguments[1], "child")) return child_work();
    printf("ready %d\n", getpid());
    fflush(stdout);
    for (int command; (command = next_command());) {
        works = steps = sum = 0;
        for (int i = 0; i < 6; i++) {
            getcontext(&fibers[i]);
            fibers[i].uc_stack.ss_sp = stacks[i];
            fibers[i].uc_stack.ss_size = sizeof stacks[i];
            fibers[i].uc_link = &back;
            makecontext(&fibers[i], (void (*)(void))fiber, 1, 80);
        }
        int wrong = 0;
        for (int k = 0; k <= 80; k++) {
            for (int i = 0; i < 6; i++) { current = i; swapcontext(&back, &fibers[i]); }
            if (command == 's' && k == 40) wrong = storm();
        }
        printf("{\"sum\":%ld,\"calls\":{\"work\":%ld,\"step\":%ld},\"parents\":{\"step\":{\"work\":%ld}},\"wrong\":%d,\"children\":%d}\n",
               sum, works, steps, steps, wrong, command == 's' ? CHILDREN * 10 : 0);
        fflush(stdout);
    }
    return 42;
}
