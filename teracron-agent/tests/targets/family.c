/* A server with workers. Commands on stdin:
     fork N MS   N children at once, each of which calls `work` for MS milliseconds and ends;
     call N      N calls here;
     storm N     N children one after the other, each with one call, none waited for at once.
   Each process writes "PID CALLS" and, per call, its wall clock before it, to the file named as argument 1 (O_APPEND, one
   write per process). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST 20000
static unsigned long long times[MOST];
static int made;
static unsigned long long forked;

static unsigned long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

__attribute__((noinline)) int work(int i) {
    __asm__ volatile("" ::: "rbx", "memory");
    return i + 1;
}

static void call(void) {
    if (made < MOST) times[made++] = now();
    work(made);
}

static void report(const char *path) {
    static char text[MOST * 24];
    int len = sprintf(text, "%d %llu", getpid(), forked);
    for (int i = 0; i < made; i++) len += sprintf(text + len, " %llu", times[i]);
    text[len++] = '\n';
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (fd < 0 || write(fd, text, len) != len) abort();
    close(fd);
}

int main(int argc, char **argv) {
    char line[64];
    (void)argc;
    printf("ready %d\n", getpid());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        int n = 0, ms = 0;
        if (sscanf(line, "fork %d %d", &n, &ms) == 2) {
            for (int k = 0; k < n; k++) {
                unsigned long long at = now();
                if (fork() == 0) {
                    made = 0;
                    forked = at;
                    while (now() - at < ms * 1000000ull && made < MOST) {
                        call();
                        usleep(200);
                    }
                    report(argv[1]);
                    _exit(0);
                }
            }
            while (wait(0) > 0) {}
        } else if (sscanf(line, "storm %d", &n) == 1) {
            for (int k = 0; k < n; k++) {
                if (fork() == 0) {
                    work(k);
                    _exit(0);
                }
                while (waitpid(-1, 0, WNOHANG) > 0) {}
            }
            while (wait(0) > 0) {}
        } else if (sscanf(line, "call %d", &n) == 1) {
            for (int k = 0; k < n; k++) call();
        } else if (strncmp(line, "stay", 4) == 0) {
            /* A child that was there before anybody looked. */
            int gate[2];
            if (pipe(gate)) abort();
            if (fork() == 0) {
                made = 0;
                printf("child %d\n", getpid());
                fflush(stdout);
                char c;
                close(gate[1]);
                if (read(gate[0], &c, 1) == 1)
                    for (int k = 0; k < 50; k++) call();
                report(argv[1]);
                _exit(0);
            }
            close(gate[0]);
            /* The next line lets it go. */
            if (!fgets(line, sizeof line, stdin)) return 1;
            if (write(gate[1], "x", 1) != 1) return 1;
            while (wait(0) > 0) {}
        }
        printf("done\n");
        fflush(stdout);
    }
    report(argv[1]);
    return 0;
}
