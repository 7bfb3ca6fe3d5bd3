/* A process whose main thread ends by pthread_exit, before it is ready or in its first round, and that goes on in another.
 * leader before|first|stays: makes 300 calls in each of two rounds. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

__attribute__((noinline)) int work(int number) {
    __asm__ volatile("");
    return number + 1;
}

static int early, stays;
static pthread_t leader;

static void *go_on(void *nothing) {
    (void)nothing;
    if (early) pthread_join(leader, NULL);
    printf("ready %d\n", getpid());
    fflush(stdout);
    for (int round = 0, sum = 0; round < 2; round++) {
        char line[16];
        if (!fgets(line, sizeof line, stdin)) _exit(0);
        for (int i = 0; i < 300; i++) sum = work(sum);
        if (!early && !stays && round == 0) {
            pthread_cancel(leader);
            pthread_join(leader, NULL);
        }
        printf("%d\ndone\n", sum);
        fflush(stdout);
    }
    while (getchar() != EOF) {}
    _exit(0);
}

int main(int count, char **arguments) {
    early = count > 1 && !strcmp(arguments[1], "before");
    stays = count > 1 && !strcmp(arguments[1], "stays");
    leader = pthread_self();
    pthread_t thread;
    pthread_create(&thread, NULL, go_on, NULL);
    if (early) pthread_exit(NULL);
    for (;;) pause();
}
