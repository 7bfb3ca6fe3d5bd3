/* Pure C programs that leave their stack and come back, or may load what unwinds it: -DKIND says
   which. A return probe on work() or outer() would kill some of them and could kill all. */
#define _GNU_SOURCE
#include "log.h"
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <ucontext.h>

#define SWITCHES 1
#define SIGNALS 2
#define LOADS 3
#define OWN_STACK 4
#define CLEANS_UP 5

/* Calls first, so that a return probe would be the cheapest. */
NOINLINE int work(int x) { KEEP(x); return x + 1; }

#if KIND == SWITCHES
static ucontext_t home, other;
NOINLINE int outer(int x) {
    int y = work(x);
    swapcontext(&other, &home);
    return y + work(y);
}
static void fiber(void) {
    BEGIN("outer"); BEGIN("work"); OK();
    outer(1);
    BEGIN("work"); OK(); OK();
}
static void play(void) {
    char *stack = malloc(1 << 16);
    getcontext(&other);
    other.uc_stack.ss_sp = stack;
    other.uc_stack.ss_size = 1 << 16;
    other.uc_link = &home;
    makecontext(&other, fiber, 0);
    swapcontext(&home, &other);
    work(3); /* on the higher stack, while outer() is open on the lower */
    swapcontext(&home, &other);
}
#elif KIND == SIGNALS
static void handler(int number) { work(number); }
NOINLINE int outer(int x) {
    raise(SIGUSR1);
    return x + work(x);
}
static void *thread(void *stack) {
    stack_t alternate = {.ss_sp = stack, .ss_size = 1 << 20};
    sigaltstack(&alternate, 0);
    for (int i = 0; i < 20; i++) outer(i);
    return 0;
}
static char below[1 << 18] __attribute__((aligned(4096)));
static void play(void) {
    /* The alternate stack lies above the thread's, which is in the program's data. */
    pthread_attr_t lower;
    pthread_attr_init(&lower);
    pthread_attr_setstack(&lower, below, sizeof below);
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &action, 0);
    pthread_t id;
    pthread_create(&id, &lower, thread, malloc(1 << 20));
    pthread_join(id, 0);
}
#elif KIND == LOADS
NOINLINE int outer(int x) { return x + work(x); }
static void play(void) {
    void *library = dlopen("libm.so.6", RTLD_NOW);
    for (int i = 0; i < 20; i++) outer(i + (library != 0));
}
#elif KIND == OWN_STACK
static char fresh[1 << 16];
NOINLINE int outer(int x) { return x + work(x); }
NOINLINE void on_stack(char *top) {
    __asm__ volatile("mov %%rsp, %%rbx\n mov %0, %%rsp\n call outer\n mov %%rbx, %%rsp"
                     : : "r"(top), "D"(3) : "rbx", "rax", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "memory");
}
static void play(void) {
    for (int i = 0; i < 20; i++) { on_stack(fresh + sizeof fresh - 64); outer(i); }
}
#elif KIND == CLEANS_UP
static void cleanup(int *x) { KEEP(x); }
static int (*volatile any)(int) = work; /* the compiler can't know that it throws nothing */
NOINLINE int outer(int x) {
    __attribute__((cleanup(cleanup))) int y = any(x);
    return y + any(y);
}
static void play(void) { for (int i = 0; i < 20; i++) outer(i); }
#endif

int main(void) {
    log_start();
    play();
    log_finish();
    return 0;
}
