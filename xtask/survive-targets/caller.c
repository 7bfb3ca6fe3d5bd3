// Looks at its own return address, as allocators, profilers and call-site checks do.
#include "target.h"

extern char __executable_start, etext;
static long works, checks, foreign;

PROBED int work(int i) { counted(&works); return i * 3; }
PROBED int checked(int i) {
    counted(&checks);
    char *from = (char *)__builtin_return_address(0);
    if (from < &__executable_start || from >= &etext) counted(&foreign);
    return work(i) + 1;
}
static int child_work(void) {
    int got = 0;
    for (int i = 0; i < 10; i++) got += checked(i);
    return got == 145 && !foreign ? 77 : 78;
}
int main(int count, char **arguments) {
    if (count > 1 && !strcmp(arguments[1], "child")) return child_work();
    printf("ready %d\n", getpid());
    fflush(stdout);
    for (int command; (command = next_command());) {
        works = checks = 0;
        long sum = 0;
        for (int i = 0; i < 500; i++) sum += checked(i);
        int wrong = command == 's' ? storm() : 0;
        printf("{\"sum\":%ld,\"calls\":{\"work\":%ld,\"checked\":%ld},\"parents\":{\"work\":{\"checked\":%ld}},\"wrong\":%ld,\"children\":%d}\n",
               sum, works, checks, works, wrong + foreign, command == 's' ? CHILDREN * 20 : 0);
        fflush(stdout);
    }
    return foreign ? 78 : 46;
}
