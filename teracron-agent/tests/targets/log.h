/* What every target does: it waits to be told to start, writes down itself which calls it made and
 * how they ended, and prints that when it is done. The log is kept in memory per thread, so that
 * nothing but the calls happens while it is traced.
 *
 * Protocol on stdin and stdout: "ready" -> "go" -> log lines, "done" -> anything or end of file.
 * Log lines: "B thread name" a call begins, "E thread status [error]" the innermost call ends. */
#ifndef TERACRON_TEST_LOG_H
#define TERACRON_TEST_LOG_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct log_entry {
    char what;
    int thread;
    const char *text;
};
#define LOG_ENTRIES (1 << 20)
static struct log_entry *log_entries;
static unsigned long log_used;

static __thread int log_tid;

static inline int log_thread(void) {
    /* Not syscall(): what can make any system call gets no return probes. */
    if (!log_tid) log_tid = (int)gettid();
    return log_tid;
}

static inline void log_add(char what, const char *text) {
    unsigned long at = __atomic_fetch_add(&log_used, 1, __ATOMIC_RELAXED);
    if (at >= LOG_ENTRIES) abort();
    log_entries[at].thread = log_thread();
    log_entries[at].text = text;
    __atomic_store_n(&log_entries[at].what, what, __ATOMIC_RELEASE);
}

/* Around a call: BEGIN("name"); name(...); OK(); */
#define BEGIN(name) log_add('B', name)
#define OK() log_add('E', "succeeded")
#define FAILED(error) log_add('E', "failed " error)

static void log_start(void) {
    char line[64];
    log_entries = (struct log_entry *)calloc(LOG_ENTRIES, sizeof *log_entries);
    if (!log_entries) abort();
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) exit(9);
}

static void log_write(void) {
    for (unsigned long at = 0; at < log_used; at++)
        printf("%c %d %s\n", log_entries[at].what, log_entries[at].thread, log_entries[at].text);
}

static void log_finish(void) {
    char line[64];
    log_write();
    printf("done\n");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) {}
}

/* Keeps the compiler from turning the last call of a function into a jump, and from dropping it. */
#define KEEP(value) __asm__ volatile("" : "+r"(value) : : "memory")
#define NOINLINE __attribute__((noinline, noclone))
#endif
