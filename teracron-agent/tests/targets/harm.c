/* Plain C programs that a return probe, or a probe on a 5-byte nop, would kill or change: -DKIND says which.
   Each writes down its own calls and ends with 7 where all went as it does untraced. */
#define _GNU_SOURCE
#include "log.h"
#include <dlfcn.h>
#include <execinfo.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define JIT 1
#define CALLER 2
#define FORKS 3
#define NEXT 4
#define BACKTRACE 5
#define WALKS 6

#if KIND == JIT
/* Stacks are switched by code that is made when the program has been traced for a while. */
typedef void switcher(void **from, void *to);
static const unsigned char switch_code[] = {
    /* push rbx,rbp,r12..r15; mov [rdi],rsp; mov rsp,rsi; pop r15..r12,rbp,rbx; ret */
    0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x48, 0x89, 0x27, 0x48,
    0x89, 0xf4, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3};
#define STACKS 4
#define CALLS 25
static switcher *change;
static void *home, *stacks[STACKS];
static int current;
NOINLINE int work(int x) {
    change(&stacks[current], home);
    KEEP(x);
    return x + 1;
}
static void fiber(void) {
    for (int i = 0; i < CALLS; i++) work(i);
    for (;;) change(&stacks[current], home);
}
static void play(void) {
    void *code = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code, switch_code, sizeof switch_code);
    if (mprotect(code, 4096, PROT_READ | PROT_EXEC)) abort();
    change = (switcher *)code;
    for (int i = 0; i < STACKS; i++) {
        char *stack = malloc(1 << 16);
        uintptr_t *top = (uintptr_t *)(((uintptr_t)stack + (1 << 16)) & ~63ul);
        *--top = 0;
        *--top = (uintptr_t)fiber;
        top -= 6;
        stacks[i] = top;
    }
    for (int round = 0; round <= CALLS; round++)
        for (int i = 0; i < STACKS; i++) {
            current = i;
            change(&home, stacks[i]);
        }
    for (int i = 0; i < STACKS * CALLS; i++) { BEGIN("work"); OK(); }
}
#elif KIND == CALLER
extern char __executable_start, etext;
static int foreign;
NOINLINE int work(int x) {
    char *back = __builtin_return_address(0);
    if (back < &__executable_start || back >= &etext) foreign++;
    KEEP(x);
    return x + 1;
}
/* Ends with a jump to work(), which then returns to this one's caller. */
NOINLINE int outer(int x) { if (x & 1) { KEEP(x); return x; } return work(x + 2); }
static void play(void) {
    for (int i = 0; i < 100; i++) {
        BEGIN("work"); work(i); OK();
        outer(i);
        if (!(i & 1)) { BEGIN("work"); OK(); }
    }
    if (foreign) exit(78);
}
#elif KIND == WALKS
static int foreign;
extern char __executable_start, etext;
__attribute__((noinline, noclone, optimize("no-omit-frame-pointer"))) void look(void) {
    char *back = __builtin_return_address(1);
    if (back < &__executable_start || back >= &etext) foreign++;
}
NOINLINE int work(int x) { look(); KEEP(x); return x + 1; }
static void play(void) {
    for (int i = 0; i < 100; i++) { BEGIN("work"); work(i); OK(); }
    if (foreign) exit(78);
}
#elif KIND == FORKS
NOINLINE int work(int x) { KEEP(x); return x + 1; }
static void play(void) {
    int dead = 0;
    for (int i = 0; i < 10; i++) {
        BEGIN("work"); work(i); OK();
        pid_t child = fork();
        if (!child) _exit(work(6));
        int status = 0;
        waitpid(child, &status, 0);
        dead += !WIFEXITED(status) || WEXITSTATUS(status) != 7;
        log_add('T', "");
        log_entries[log_used - 1].thread = child;
        log_entries[log_used - 1].text = "(work succeeded)";
    }
    if (dead) exit(78);
}
#elif KIND == NEXT
/* dlsym() finds out who calls it from its return address. */
static void play(void) {
    int wrong = 0;
    for (int i = 0; i < 100; i++) {
        BEGIN("dlsym");
        void *found = dlsym(RTLD_NEXT, "getpid");
        OK();
        wrong += !found;
    }
    if (wrong) exit(78);
}
#elif KIND == BACKTRACE
static int few;
static int frames[3];
NOINLINE int work(int depth) {
    if (depth > 0) { int x = work(depth - 1); KEEP(x); return x + 1; }
    void *found[64];
    frames[0] = backtrace(found, 64);
    few += frames[0] != frames[1];
    return frames[0];
}
static void play(void) {
    void *found[64];
    frames[1] = backtrace(found, 64) + 9;
    for (int i = 0; i < 20; i++) {
        for (int d = 0; d < 9; d++) BEGIN("work");
        work(8);
        for (int d = 0; d < 9; d++) OK();
    }
    if (few) exit(78);
}
#endif

int main(void) {
    log_start();
    play();
    log_finish();
    return 7;
}
