// A library whose symbols somebody else brings (see `addresses.rs`).
__attribute__((noinline)) unsigned long magic(unsigned long a) {
    return a ^ 0xc35d909090909055ul; // its bytes are a function: push rbp; nop...; pop rbp; ret
}
__attribute__((noinline, visibility("hidden"))) int inner(int a) {
    __asm__ volatile("");
    return a + 1;
}
int outer(int a) { return inner(a) + 1; }
