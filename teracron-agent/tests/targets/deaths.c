/* Deaths of many kinds: `deaths KIND`. At each line on standard input it does its next step. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))
/* A page of its own, with nothing else on it or beside it. */
#define APART(name) __attribute__((noinline, noclone, section(name), aligned(16384)))

static volatile int kind;

APART(".probed") int work(int x) {
    __asm__ volatile("" : "+r"(x));
    if (kind == 1) __asm__ volatile("int3");
    if (kind == 2) *(volatile int *)8 = 1;
    if (kind == 3) __builtin_trap();
    if (kind == 4) abort();
    return x + 1;
}
/* The section goes on, so that `work` lies alone. */
APART(".probed") void filler(void) { __asm__ volatile(""); }

APART(".apart") void apart(int x) {
    if (x == 11) __asm__ volatile("int3");
    if (x == 12) *(volatile int *)8 = 1;
    if (x == 13) raise(SIGTRAP);
    /* Somebody asks for the end; nobody does. */
    if (x == 14) kill(getpid(), SIGTERM);
    if (x == 15) kill(getpid(), SIGKILL);
}

static char copy[4096];

/* What programs do that move their text into anonymous memory. */
static void move_text(void) {
    memcpy(copy, (void *)work, sizeof copy);
    void *there = mmap((void *)work, sizeof copy, PROT_READ | PROT_WRITE | PROT_EXEC,
                       MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (there != (void *)work) _exit(90);
    memcpy(there, copy, sizeof copy);
}

/* The same to another place. */
static int (*moved_elsewhere(void))(int) {
    char *there = mmap(0, sizeof copy, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (there == MAP_FAILED) _exit(91);
    memcpy(there, (void *)work, sizeof copy);
    return (int (*)(int))there;
}

static void step(void) {
    char line[16];
    if (!fgets(line, sizeof line, stdin)) exit(0);
}

static void calls(void) {
    for (int i = 0; i < 1000; i++) work(i);
    puts("called");
    fflush(stdout);
}

int main(int argc, char **argv) {
    int wanted = argc > 1 ? atoi(argv[1]) : 0;
    char before[64];
    memcpy(before, (void *)work, sizeof before);
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
    step();
    calls();
    if (wanted == 0) {
        for (;;) { step(); calls(); }
    }
    if (wanted == 30) {
        /* Its own code as it was. */
        if (mprotect((void *)work, 4096, PROT_READ | PROT_WRITE | PROT_EXEC)) _exit(92);
        memcpy((void *)work, before, sizeof before);
        calls();
        for (;;) step();
    }
    step();
    if (wanted == 21) move_text();
    if (wanted == 22) moved_elsewhere()(1);
    kind = wanted;
    work(1);
    apart(wanted);
    return 0;
}
