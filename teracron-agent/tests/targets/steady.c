/* Threads that call at a steady pace until they are told to stop; then it says how often. `outer` calls
 * `kept` and `added`; `tail` ends with a jump to `kept`. */
#include "log.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define NOINLINE __attribute__((noinline, noclone))
#define KEEP(x) __asm__ volatile("" : "+r"(x))
#define THREADS 2

static atomic_int stop;
static atomic_long calls[1];

NOINLINE int kept(int x) { KEEP(x); return x + 1; }
NOINLINE int added(int x) { KEEP(x); return x + 2; }
NOINLINE int tail(int x) { KEEP(x); return kept(x + 3); }
NOINLINE int outer(int x) {
    int y = kept(x);
    KEEP(y);
    y = added(y);
    KEEP(y);
    y = tail(y);
    KEEP(y);
    return y;
}

static void *work(void *unused) {
    struct timespec pause = {0, 20000};
    (void)unused;
    while (!stop) {
        int y = outer(1);
        KEEP(y);
        calls[0] += 1;
        nanosleep(&pause, 0);
    }
    return 0;
}

int main(void) {
    pthread_t threads[THREADS];
    char line[64];
    log_start();
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], 0, work, 0);
    printf("running\n");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return 9;
    stop = 1;
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], 0);
    printf("outer %ld\n", (long)calls[0]);
    printf("done\n");
    fflush(stdout);
    if (fgets(line, sizeof line, stdin)) {}
    return 0;
}
