/* What is traced where the packages are tried: calls a function a thousand times a second. */
#include <stdio.h>
#include <unistd.h>

__attribute__((noinline)) long pay(long order)
{
    __asm__ volatile("" : "+r"(order));
    return order % 7;
}

int main(void)
{
    puts("ready");
    fflush(stdout);
    for (long order = 1;; order++) {
        pay(order);
        usleep(1000);
    }
}
