/* Calls on several stacks, in ways that say nothing about which of them go on. One argument says which.
 * Prints, for each mode, what there is to count. */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define CALL __attribute__((noinline, noclone))
#define KEEP __asm__ volatile("" ::: "memory")
enum { FIBERS = 10, SIZE = 1 << 18 };
static ucontext_t back, fibers[FIBERS];
static char *stacks[FIBERS];
static int current;

static void yield(void) {
    int mine = current;
    swapcontext(&fibers[mine], &back);
}

static void run(int fiber) {
    current = fiber;
    swapcontext(&back, &fibers[fiber]);
}

static void make(int fiber, void (*function)(int)) {
    if (!stacks[fiber])
        stacks[fiber] = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    getcontext(&fibers[fiber]);
    fibers[fiber].uc_stack.ss_sp = stacks[fiber];
    fibers[fiber].uc_stack.ss_size = SIZE;
    fibers[fiber].uc_link = &back;
    makecontext(&fibers[fiber], (void (*)(void))function, 1, fiber);
}

/* Holes: a fiber that was thrown away is noticed while many holes are in the table; the caller of `child` is `parent`. */
CALL int child(int x) { KEEP; return x + 1; }
CALL int outer(int x) { yield(); KEEP; return x; }
CALL int parent(int x) { yield(); int got = child(x); KEEP; return got + x; }
static void open_one(int fiber) { fiber == 1 ? parent(fiber) : outer(fiber); }

static void holes(void) {
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < FIBERS; i++) make(i, open_one);
        for (int i = 0; i < FIBERS; i++) run(i);
        for (int i = 0; i < 8; i++)
            if (i != 1) run(i);
        memset(stacks[8], 0, SIZE);
        run(1);
        run(9);
    }
}

/* Coroutines that jump from one stack to the next. */
static jmp_buf places[4];
static void next(void) {
    int mine = current;
    if (_setjmp(places[mine]) == 0) {
        current = (mine + 1) % 4;
        _longjmp(places[current], 1);
    }
}
CALL int leaf(int x) { KEEP; return x + 1; }
CALL int work(int x) { int got = leaf(x); next(); got += leaf(x); KEEP; return got; }
static void say(const char *text) { printf("%s", text); fflush(stdout); }
static void wait_for_end(void) { while (getchar() != EOF) {} exit(0); }
static void jumping(int fiber) {
    if (_setjmp(places[fiber]) == 0) setcontext(&back);
    for (int i = 0; i < 10; i++) work(i);
    for (;;) {
        if (current == 3) { say("done\n"); wait_for_end(); }
        next();
    }
}
static void jumps(void) {
    for (current = 0; current < 4; current++) {
        make(current, jumping);
        swapcontext(&back, &fibers[current]);
    }
    current = 0;
    _longjmp(places[0], 1);
}

/* A fiber that goes on in another thread: `moving` returns what its argument says. */
static ucontext_t threads[2];
static int where;
static atomic_int turn;
static const int plan[] = {0, 1, 1, 0, 0, 0, 1, 0, 0, 1, 1, 1};
static void __attribute__((noinline)) move(void) { swapcontext(&fibers[0], &threads[where]); }
CALL int moving(int x) { move(); KEEP; return 1000000 + x; }
static void move_on(int fiber) {
    (void)fiber;
    for (int x = 1;; x++) { moving(x); move(); }
}
static void *take_turns(void *argument) {
    long mine = (long)argument;
    for (int now; (now = atomic_load(&turn)) < 240;) {
        if (plan[now % 12] != mine) { usleep(50); continue; }
        where = mine;
        swapcontext(&threads[mine], &fibers[0]);
        atomic_store(&turn, now + 1);
    }
    return NULL;
}
static void moves(void) {
    make(0, move_on);
    pthread_t both[2];
    for (long i = 0; i < 2; i++) pthread_create(&both[i], NULL, take_turns, (void *)i);
    for (int i = 0; i < 2; i++) pthread_join(both[i], NULL);
}

/* Handlers on a stack of their own, while two fibers wait. */
CALL void handler(int signal) { (void)signal; KEEP; }
CALL int raising(int x) { yield(); raise(SIGUSR1); KEEP; return x; }
CALL int waiting(int x) { yield(); KEEP; return x; }
static void with_handler(int fiber) { fiber ? waiting(1) : raising(1); }
static void handlers(void) {
    stack_t own = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&own, NULL);
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &action, NULL);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 2; i++) make(i, with_handler);
        run(0), run(1);
        raise(SIGUSR1);
        run(0), run(1);
    }
}

int main(int count, char **arguments) {
    printf("ready %d\n", getpid());
    fflush(stdout);
    char line[16];
    if (count < 2 || !fgets(line, sizeof line, stdin)) return 1;
    switch (arguments[1][0]) {
    case 'j': jumps(); break;
    case 'm': moves(); break;
    case 's': handlers(); break;
    default: holes();
    }
    say("done\n");
    wait_for_end();
}
