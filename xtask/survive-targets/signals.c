// Signals all the time: a profiling timer, faults that a handler on its own stack leaves by siglongjmp, raise in threads.
#include "target.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/time.h>

static long ticks, touches, raises, works;
static __thread sigjmp_buf back;

PROBED void tick(int signal) { (void)signal; counted(&ticks); }
PROBED int work(int i) { counted(&works); return i + 9; }
PROBED int touch(volatile int *where) { counted(&touches); return *where; }
PROBED void on_raise(int signal) { counted(&raises); work(signal); }
static void on_fault(int signal) { (void)signal; siglongjmp(back, 1); }

static int child_work(void) {
    int got = 0;
    for (int i = 0; i < 10; i++) got += work(i);
    return got == 135 ? 77 : 78;
}
static void *thread(void *from) {
    static __thread char own[32768];
    stack_t stack = {.ss_sp = own, .ss_size = sizeof own};
    sigaltstack(&stack, NULL);
    volatile long sum = 0;
    for (volatile long i = (long)from; i < 300; i += 3) {
        if (!sigsetjmp(back, 1)) sum += touch((volatile int *)(i + 8));
        else sum += 3;
        raise(SIGUSR1);
        sum += work((int)i);
    }
    // Before this memory of the thread's goes.
    stack.ss_flags = SS_DISABLE;
    sigaltstack(&stack, NULL);
    return (void *)sum;
}
int main(int count, char **arguments) {
    if (count > 1 && !strcmp(arguments[1], "child")) return child_work();
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    sigaction(SIGPROF, &action, NULL);
    action.sa_handler = on_raise;
    sigaction(SIGUSR1, &action, NULL);
    action.sa_handler = on_fault;
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGSEGV, &action, NULL);
    printf("ready %d\n", getpid());
    fflush(stdout);
    for (int command; (command = next_command());) {
        ticks = touches = raises = works = 0;
        struct itimerval timer = {{0, 1000}, {0, 1000}}, off = {{0, 0}, {0, 0}};
        setitimer(ITIMER_PROF, &timer, NULL);
        pthread_t threads[3];
        long sum = 0;
        for (long t = 0; t < 3; t++) if (pthread_create(&threads[t], NULL, thread, (void *)t)) return 90;
        int wrong = command == 's' ? storm() : 0;
        for (int t = 0; t < 3; t++) { void *part; pthread_join(threads[t], &part); sum += (long)part; }
        // The timer counts processor time: spin, so that it strikes.
        for (volatile long spin = 0; spin < 20000000 && ticks < 20; spin++) { }
        setitimer(ITIMER_PROF, &off, NULL);
        usleep(2000);
        printf("{\"sum\":%ld,\"calls\":{\"work\":%ld,\"touch\":%ld,\"on_raise\":%ld,\"tick\":%ld},\"failed\":{\"touch\":%ld},"
               "\"wrong\":%d,\"children\":%d}\n",
               sum, works, touches, raises, ticks, touches, wrong, command == 's' ? CHILDREN * 10 : 0);
        fflush(stdout);
    }
    return 45;
}
