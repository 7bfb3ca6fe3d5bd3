// Plain C: nested calls, recursion, longjmp out of calls, threads. Built by several compilers and ways to link.
#include "target.h"
#include <setjmp.h>

static long leaves, middles, tops, deeps, jumps;

PROBED int leaf(int i) { counted(&leaves); return i * 7 + 1; }
PROBED int middle(int i) { counted(&middles); return leaf(i) ^ leaf(i + 1); }
PROBED int top(int i) { counted(&tops); return middle(i) + 3; }
PROBED int deep(int n) {
    counted(&deeps);
    int below = n ? deep(n - 1) : 1;
    // Else it would become a loop.
    __asm__ volatile("" : "+r"(below));
    return below + n;
}
static __thread jmp_buf back;
PROBED int jump(int i) { counted(&jumps); if (leaf(i)) longjmp(back, 1); return i; }

static int child_work(void) {
    int sum = 0, right = 0;
    for (int i = 0; i < 10; i++) sum += top(i), right += ((i * 7 + 1) ^ (i * 7 + 8)) + 3;
    return sum == right ? 77 : 78;
}
static void *half(void *from) {
    long sum = 0;
    for (volatile long i = (long)from; i < 200; i += 2) {
        sum += top((int)i);
        if (i % 10 == 0) {
            sum += deep(20);
            if (!setjmp(back)) jump((int)i); else sum += 5;
        }
    }
    return (void *)sum;
}
int main(int count, char **arguments) {
    if (count > 1 && !strcmp(arguments[1], "child")) return child_work();
    printf("ready %d\n", getpid());
    fflush(stdout);
    for (int command; (command = next_command());) {
        leaves = middles = tops = deeps = jumps = 0;
        long sum = 0;
        pthread_t threads[2];
        for (long t = 0; t < 2; t++) if (pthread_create(&threads[t], NULL, half, (void *)t)) return 90;
        int wrong = command == 's' ? storm() : 0;
        for (int t = 0; t < 2; t++) { void *part; pthread_join(threads[t], &part); sum += (long)part; }
        printf("{\"sum\":%ld,\"calls\":{\"leaf\":%ld,\"middle\":%ld,\"top\":%ld,\"deep\":%ld,\"jump\":%ld},"
               "\"failed\":{\"jump\":%ld},"
               "\"parents\":{\"leaf\":{\"middle\":%ld,\"jump\":%ld},\"middle\":{\"top\":%ld}},"
               "\"wrong\":%d,\"children\":%d}\n",
               sum, leaves, middles, tops, deeps, jumps, jumps, leaves - jumps, jumps, middles, wrong,
               command == 's' ? CHILDREN * 40 : 0);
        fflush(stdout);
    }
    return 40;
}
