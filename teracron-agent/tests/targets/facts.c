/* A call that fails with ENOSPC. With -DOWN its errno lies elsewhere than in other programs: its own thread-local
 * variables, full of EACCES, come first. A line on stdin is so many calls; "end" ends. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef OWN
static __thread int own[256];
#endif

__attribute__((noinline, noclone)) int pay(int n) {
    __asm__ volatile("" : "+r"(n));
    errno = ENOSPC;
    return -n - 1;
}

int main(void) {
#ifdef OWN
    for (int i = 0; i < 256; i++) ((volatile int *)own)[i] = EACCES;
#endif
    printf("ready %d\n", getpid());
    fflush(stdout);
    char line[64];
    int sum = 0;
    while (fgets(line, sizeof line, stdin) && strcmp(line, "end\n")) {
        for (int n = atoi(line); n > 0; n--) sum += pay(n);
        printf("done\n");
        fflush(stdout);
    }
    return sum > 0;
}
