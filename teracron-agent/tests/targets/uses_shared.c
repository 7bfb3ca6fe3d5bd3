// Calls a library over and over and checks what it computes.
#include <stdio.h>
#include <unistd.h>
unsigned long magic(unsigned long);
int outer(int);
int main(void) {
    printf("ready %d\n", getpid());
    fflush(stdout);
    getchar();
    unsigned long wrong = 0;
    for (int i = 0; i < 1000; i++) wrong += magic(0) != 0xc35d909090909055ul || outer(i) != i + 2;
    printf("%lu wrong\ndone\n", wrong);
    fflush(stdout);
    getchar();
    return 0;
}
