/* A stranger: forks a child and maps executable memory, again and again for some seconds; both take the locks that the
 * kernel holds while breakpoints are set. Prints, in microseconds: forks, then the median, the 99th and 99.9th percentile
 * and the longest of fork, and the same of mmap and munmap. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 400000 };
static double forks[MOST], maps[MOST];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static int less(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print(double *times, int count) {
    qsort(times, count, sizeof *times, less);
    printf(" %.1f %.1f %.1f %.1f", times[count / 2], times[(long)count * 99 / 100],
           times[(long)count * 999 / 1000], times[count - 1]);
}

int main(int argc, char **argv) {
    int count = 0;
    double until = now() + atof(argc > 1 ? argv[1] : "1") * 1e6;
    while (count < MOST && now() < until) {
        double before = now();
        pid_t child = fork();
        if (child == 0) _exit(0);
        forks[count] = now() - before;
        waitpid(child, NULL, 0);
        before = now();
        void *code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        munmap(code, 4096);
        maps[count++] = now() - before;
    }
    printf("%d", count);
    print(forks, count);
    print(maps, count);
    printf("\n");
    return 0;
}
