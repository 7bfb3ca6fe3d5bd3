// A C program with a Go library (`cshared`).
#include <stdio.h>
#include <unistd.h>
extern int GoWork(int);
int main(void) {
    printf("ready %d\n", getpid());
    fflush(stdout);
    getchar();
    long sum = 0;
    for (int i = 0; i < 500; i++) sum += GoWork(i);
    printf("%ld\ndone\n", sum);
    fflush(stdout);
    getchar();
    return 3;
}
