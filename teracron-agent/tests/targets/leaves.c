/* Frames that end without returning, and code that runs on other stacks. argv[1] says which. */
#include "log.h"
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/wait.h>
#include <ucontext.h>

static jmp_buf place;
static sigjmp_buf signal_place;

NOINLINE int leaf(int x) { KEEP(x); return x + 1; }

/* longjmp */
NOINLINE int jump_inner(int x) {
    if (x & 1) longjmp(place, x);
    KEEP(x);
    return x;
}
NOINLINE int jump_outer(int x) {
    int y = jump_inner(x);
    KEEP(y);
    return y;
}
NOINLINE int jump_base(int x) {
    int y = 0;
    if (setjmp(place) == 0) {
        BEGIN("jump_outer"); BEGIN("jump_inner");
        y = jump_outer(x);
        OK(); OK();
    } else {
        FAILED("longjmp"); FAILED("longjmp");
        /* The same place on the stack again. */
        BEGIN("leaf"); y = leaf(x); OK();
    }
    KEEP(y);
    return y;
}
static void longjumps(void) {
    for (int i = 0; i < 200; i++) { BEGIN("jump_base"); jump_base(i); OK(); }
}

/* Threads that end inside calls. */
NOINLINE int exit_inner(int x) {
    if (x) pthread_exit(0);
    return x;
}
NOINLINE int exit_outer(int x) {
    int y = exit_inner(x);
    KEEP(y);
    return y;
}
static void *exiting(void *unused) {
    (void)unused;
    BEGIN("leaf"); leaf(3); OK();
    BEGIN("exit_outer"); BEGIN("exit_inner");
    FAILED("thread exited"); FAILED("thread exited");
    exit_outer(1);
    return 0;
}
static int started;
NOINLINE int wait_inner(int x) {
    __atomic_store_n(&started, 1, __ATOMIC_RELEASE);
    for (;;) pause();
    return x;
}
NOINLINE int wait_outer(int x) {
    int y = wait_inner(x);
    KEEP(y);
    return y;
}
static void *waiting(void *unused) {
    (void)unused;
    BEGIN("wait_outer"); BEGIN("wait_inner");
    FAILED("thread exited"); FAILED("thread exited");
    wait_outer(1);
    return 0;
}
static void threads(void) {
    for (int i = 0; i < 20; i++) {
        pthread_t id;
        pthread_create(&id, 0, exiting, 0);
        pthread_join(id, 0);
        __atomic_store_n(&started, 0, __ATOMIC_RELEASE);
        pthread_create(&id, 0, waiting, 0);
        while (!__atomic_load_n(&started, __ATOMIC_ACQUIRE)) sched_yield();
        pthread_cancel(id);
        pthread_join(id, 0);
    }
}

/* A handler on a stack of its own. */
NOINLINE int in_handler(int x) {
    int y;
    BEGIN("leaf"); y = leaf(x); OK();
    KEEP(y);
    return y;
}
static int jump_out;
static void handler(int number) {
    if (jump_out) {
        BEGIN("in_handler"); in_handler(number); OK();
        siglongjmp(signal_place, 1);
    }
    BEGIN("in_handler"); in_handler(number); OK();
}
NOINLINE int signalled(int x) {
    int y = x;
    BEGIN("leaf"); y += leaf(x); OK();
    raise(SIGUSR1);
    BEGIN("leaf"); y += leaf(x); OK();
    KEEP(y);
    return y;
}
NOINLINE int signalled_outer(int x) {
    int y;
    BEGIN("signalled"); y = signalled(x); OK();
    KEEP(y);
    return y;
}
NOINLINE int abandoned(int x) {
    raise(SIGUSR1);
    KEEP(x);
    return x;
}
static void *signals_in_thread(void *unused) {
    (void)unused;
    char *memory = malloc(65536);
    stack_t stack = {.ss_sp = memory, .ss_size = 65536};
    sigaltstack(&stack, 0);
    for (int i = 0; i < 50; i++) { BEGIN("signalled_outer"); signalled_outer(i); OK(); }
    return 0;
}
static void signals(void) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK | SA_NODEFER};
    pthread_t id;
    sigaction(SIGUSR1, &action, 0);
    signals_in_thread(0);
    pthread_create(&id, 0, signals_in_thread, 0);
    pthread_join(id, 0);
    jump_out = 1;
    for (int i = 0; i < 20; i++) {
        if (sigsetjmp(signal_place, 1) == 0) {
            BEGIN("abandoned");
            abandoned(i);
        } else {
            FAILED("longjmp");
        }
        BEGIN("leaf"); leaf(i); OK();
    }
}

/* Coroutines with stacks from the heap, side by side. */
#define FIBERS 3
static ucontext_t home, fiber[FIBERS];
static int turns = 3;
NOINLINE int fiber_work(int which) {
    for (int i = 0; i < turns; i++) {
        int y = leaf(i);
        KEEP(y);
        swapcontext(&fiber[which], &home);
    }
    return which;
}
static void fiber_main(int which) {
    int y = fiber_work(which);
    KEEP(y);
}
NOINLINE int resume_all(int x) {
    char *memory = malloc(FIBERS * 65536);
    for (int i = 0; i < FIBERS; i++) {
        getcontext(&fiber[i]);
        fiber[i].uc_stack.ss_sp = memory + i * 65536;
        fiber[i].uc_stack.ss_size = 65536;
        fiber[i].uc_link = &home;
        makecontext(&fiber[i], (void (*)(void))fiber_main, 1, i);
    }
    for (int turn = 0; turn <= turns; turn++) {
        for (int i = 0; i < FIBERS; i++) {
            swapcontext(&home, &fiber[i]);
        }
        x = leaf(x);
        KEEP(x);
    }
    free(memory);
    return x;
}
static void *fibers_once(void *unused) {
    (void)unused;
    for (int i = 0; i < 10; i++) {
        resume_all(i);
        log_add('T', "(resume_all succeeded"
            "(fiber_work succeeded(leaf succeeded)(leaf succeeded)(leaf succeeded))"
            "(fiber_work succeeded(leaf succeeded)(leaf succeeded)(leaf succeeded))"
            "(fiber_work succeeded(leaf succeeded)(leaf succeeded)(leaf succeeded))"
            "(leaf succeeded)(leaf succeeded)(leaf succeeded)(leaf succeeded))");
    }
    return 0;
}
static void fibers(void) {
    fibers_once(0);
}
static void fibers_in_thread(void) {
    pthread_t id;
    pthread_create(&id, 0, fibers_once, 0);
    pthread_join(id, 0);
}

/* Tail calls, direct and through a pointer. */
NOINLINE int tail_last(int x) { KEEP(x); return x + 2; }
NOINLINE int tail_middle(int x) { KEEP(x); return tail_last(x + 1); }
NOINLINE int tail_first(int x) { KEEP(x); return x & 1 ? tail_middle(x) : tail_last(x); }
static int (*volatile indirect)(int) = tail_last;
NOINLINE int tail_indirect(int x) { KEEP(x); return indirect(x); }
NOINLINE int unprobed(int x) { KEEP(x); return x; }
NOINLINE int tail_unprobed(int x) { KEEP(x); return unprobed(x); }
static void tails(void) {
    for (int i = 0; i < 100; i++) {
        int y = tail_first(i); KEEP(y);
        log_add('T', i & 1 ? "(tail_first succeeded(tail_middle succeeded(tail_last succeeded)))"
                           : "(tail_first succeeded(tail_last succeeded))");
        y = tail_unprobed(i); KEEP(y);
        log_add('T', "(tail_unprobed succeeded)");
        y = tail_indirect(i); KEEP(y);
        log_add('T', "(tail_indirect succeeded)");
        log_add('T', "(tail_last succeeded)");
    }
}

/* Deeper than the frame table. */
NOINLINE long dive(int n) {
    long below = n > 0 ? dive(n - 1) : 0;
    KEEP(below);
    return below + 1;
}
static void deep(void) {
    for (int i = 0; i < 10; i++) {
        dive(199); /* 200 calls */
        leaf(i);
    }
}

/* Children. */
NOINLINE int child_work(int x) {
    int y;
    BEGIN("leaf"); y = leaf(x); OK();
    KEEP(y);
    return y;
}
static void forks(char **argv) {
    BEGIN("child_work"); child_work(1); OK();
    for (int i = 0; i < 8; i++) {
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            log_used = 0;
            log_tid = 0;
            /* At once: the first call of the child counts. */
            for (int k = 0; k < 20; k++) { BEGIN("child_work"); child_work(k); OK(); }
            if (i == 3) {
                pid_t grandchild = fork();
                if (grandchild == 0) {
                    log_used = 0;
                    log_tid = 0;
                    BEGIN("child_work"); child_work(5); OK();
                    log_write();
                    fflush(stdout);
                    _exit(0);
                }
                waitpid(grandchild, 0, 0);
            }
            log_write();
            fflush(stdout);
            if (i == 5) execl("/bin/true", "true", (char *)0);
            _exit(0);
        }
        waitpid(pid, 0, 0);
    }
    BEGIN("child_work"); child_work(2); OK();
    (void)argv;
}

/* Endings of the whole process. */
NOINLINE int end_inner(int x) {
    if (x == 1) exit(0);
    if (x == 7) exit(3);
    if (x == 2) abort();
    if (x == 3) *(volatile int *)8 = 1;
    if (x == 4) execl("/bin/true", "true", (char *)0);
    if (x == 5) for (;;) pause();
    if (x == 6) raise(SIGTERM);
    return x;
}
NOINLINE int end_outer(int x) {
    int y = end_inner(x);
    KEEP(y);
    return y;
}

/* As fast as it goes, for ever. */
NOINLINE int fast(int x) { KEEP(x); return x + 1; }
static void endless(void) {
    char line[64];
    printf("running\n");
    fflush(stdout);
    for (long i = 0;; i++) {
        int y = fast((int)i);
        KEEP(y);
    }
    if (fgets(line, sizeof line, stdin)) {}
}

/* A given number of calls, as fast as it goes. */
static void burst(long count) {
    for (long i = 0; i < count; i++) {
        int y = fast((int)i);
        KEEP(y);
    }
}

/* Already inside calls when the tracing begins. */
NOINLINE int around(int depth) {
    int y = 0;
    if (depth > 0) {
        y = around(depth - 1);
    } else {
        log_start();
        BEGIN("leaf"); y = leaf(1); OK();
    }
    KEEP(y);
    return y;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "middle") == 0) {
        around(5);
        BEGIN("leaf"); leaf(2); OK();
        log_finish();
        return 0;
    }
    log_start();
    if (strcmp(what, "longjmp") == 0) longjumps();
    else if (strcmp(what, "threads") == 0) threads();
    else if (strcmp(what, "signals") == 0) signals();
    else if (strcmp(what, "fibers") == 0) fibers();
    else if (strcmp(what, "fibers-in-thread") == 0) fibers_in_thread();
    else if (strcmp(what, "tails") == 0) tails();
    else if (strcmp(what, "deep") == 0) deep();
    else if (strcmp(what, "forks") == 0) forks(argv);
    else if (strcmp(what, "endless") == 0) endless();
    else if (strcmp(what, "burst") == 0) burst(atol(argv[2]));
    else if (strcmp(what, "end") == 0) return end_outer(atoi(argv[2]));
    else return 8;
    log_finish();
    return 0;
}
