/* A plugin that later.c loads. */
__attribute__((noinline)) int plugged(int x) { __asm__ volatile("" : "+r"(x)); return x * 2; }
