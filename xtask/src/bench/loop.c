/* Calls work() for ever; prints nanoseconds per call of each round. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

__attribute__((noinline, noclone)) static int helper(int x) { __asm__ volatile("" : "+r"(x)); return x; }

__attribute__((noinline, noclone)) int work(int x) {
    int y = helper(x);
    __asm__ volatile("" : "+r"(y) : : "memory");
    return y + 1;
}

int main(int argc, char **argv) {
    const int calls = 20000;
    if (argc > 1 && strcmp(argv[1], "idle") == 0)
        for (;;) pause();
    for (;;) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        for (int i = 0; i < calls; i++) {
            int y = work(i);
            __asm__ volatile("" : "+r"(y) : : "memory");
        }
        clock_gettime(CLOCK_MONOTONIC, &b);
                printf("%.2f\n", ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / calls);
        fflush(stdout);
    }
}
