/* A library with two versions of a function: -shared -fPIC. */
__attribute__((noinline)) int pay_old(int x) {
    __asm__ volatile("" : "+r"(x) : : "memory");
    return x + 1;
}
__attribute__((noinline)) int pay_new(int x) {
    __asm__ volatile("" : "+r"(x) : : "memory");
    return x + 2;
}
__asm__(".symver pay_old, pay@SHOP_1\n.symver pay_new, pay@@SHOP_2");
