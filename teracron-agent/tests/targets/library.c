/* A library of its own: -shared -fPIC. */
__attribute__((noinline)) int pay_inner(int x) {
    __asm__ volatile("" : "+r"(x) : : "memory");
    return x + 1;
}
int pay(int x) {
    int y = pay_inner(x);
    __asm__ volatile("" : "+r"(y) : : "memory");
    return y * 2;
}
