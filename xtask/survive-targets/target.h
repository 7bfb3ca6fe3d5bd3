// What every target in C and C++ speaks: it says "ready PID", does a fixed amount of work for each "round" on
// standard input ("storm": with forks and execs), answers each with one line of JSON (its checksum and what it
// counted itself), and ends at the end of input. "child" as the argument: it is one of a storm.
#pragma once
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROBED __attribute__((noinline, noipa))
#define CHILDREN 30

extern char **environ;

// The calls of this process. A function of its own: one that begins with `lock` takes no probe of bpftrace or perf.
__attribute__((noinline, noipa, unused)) static long counted(long *counter) { return __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED); }

static int next_command(void) {
    char line[64];
    if (!fgets(line, sizeof line, stdin)) return 0;
    return line[0] == 's' ? 's' : 'r';
}

// A child's own work must come to the same number wherever it is done.
static int child_work(void);

// Forks, and executes itself, again and again; answers how many children did not end as they must.
static int storm(void) {
    int wrong = 0;
    for (int i = 0; i < CHILDREN; i++) {
        pid_t pid;
        if (i % 3 == 0) {
            char *const arguments[] = {(char *)"target", (char *)"child", NULL};
            if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, arguments, environ)) { wrong++; continue; }
        } else if (i % 3 == 1) {
            pid = vfork();
            if (!pid) { execl("/proc/self/exe", "target", "child", (char *)NULL); _exit(99); }
        } else {
            pid = fork();
            if (!pid) _exit(child_work());
        }
        int status;
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 77 << 8) wrong++;
    }
    return wrong;
}
