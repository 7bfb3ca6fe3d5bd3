/* Calls back and gives 3x + 1. */
__attribute__((noinline)) int twice(int x) { __asm__ volatile("" ::: "memory"); return x * 2; }
__attribute__((noinline)) int triple(int (*back)(int), int x) {
    int got = twice(x);
    got += back(x);
    __asm__ volatile("" ::: "memory");
    return got + 1;
}
