// The same in C++, with a function that can throw.
#include <cstdio>
#include <cstring>
#include <ctime>
#include <stdexcept>
#include <unistd.h>

[[gnu::noinline]] static int helper(int x) {
    if (x < 0) throw std::runtime_error("negative");
    asm volatile("" : "+r"(x));
    return x;
}

[[gnu::noinline]] int work(int x) {
    int y = helper(x);
    asm volatile("" : "+r"(y) : : "memory");
    return y + 1;
}

int main(int argc, char** argv) {
    const int calls = 20000;
    if (argc > 1 && strcmp(argv[1], "idle") == 0)
        for (;;) pause();
    try {
        for (;;) {
            timespec a, b;
            clock_gettime(CLOCK_MONOTONIC, &a);
            for (int i = 0; i < calls; i++) {
                int y = work(i);
                asm volatile("" : "+r"(y) : : "memory");
            }
            clock_gettime(CLOCK_MONOTONIC, &b);
                        printf("%.2f\n", ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / calls);
            fflush(stdout);
        }
    } catch (const std::exception&) {
        return 1;
    }
}
