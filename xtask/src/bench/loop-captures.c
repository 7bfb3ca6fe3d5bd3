/* Calls work() for ever with a number and a string; prints nanoseconds per call of each round. */
#include <stdio.h>
#include <time.h>

__attribute__((noinline, noclone)) static int helper(int x) { __asm__ volatile("" : "+r"(x)); return x; }

__attribute__((noinline, noclone)) int work(int order_id, const char *name) {
    int y = helper(order_id);
    __asm__ volatile("" : "+r"(y) : "r"(name) : "memory");
    return y + 1;
}

int main(void) {
    const int calls = 20000;
    for (;;) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        for (int i = 0; i < calls; i++) {
            int y = work(i, "hello world");
            __asm__ volatile("" : "+r"(y) : : "memory");
        }
        clock_gettime(CLOCK_MONOTONIC, &b);
        printf("%.2f\n", ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / calls);
        fflush(stdout);
    }
}
