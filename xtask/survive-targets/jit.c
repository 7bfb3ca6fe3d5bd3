// Code that is made at run time, after the start, and switches stacks.
#include "target.h"
#include <sys/mman.h>

// push rbx, rbp, r12 to r15; mov [rdi], rsp; mov rsp, rsi; pop them in turn; ret
static const unsigned char code[] = {0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x48, 0x89, 0x27, 0x48,
                                     0x89, 0xf4, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3};
static void (*sw)(void **, void *);
static void *main_sp, *sp[4];
static char stacks[4][65536] __attribute__((aligned(16)));
static int current;
static long works, plains, sum;

PROBED int plain(int i) { counted(&plains); return i * 5; }
PROBED int work(int i) {
    counted(&works);
    sw(&sp[current], main_sp);
    return i + plain(i);
}
static void body(void) {
    for (int k = 0;; k++) {
        if (k < 100) sum += work(k);
        else sw(&sp[current], main_sp);
    }
}
static int child_work(void) {
    int got = 0;
    for (int i = 0; i < 10; i++) got += plain(i);
    return got == 225 ? 77 : 78;
}
int main(int count, char **arguments) {
    if (count > 1 && !strcmp(arguments[1], "child")) return child_work();
    printf("ready %d\n", getpid());
    fflush(stdout);
    for (int command; (command = next_command());) {
        works = plains = sum = 0;
        // Again each time: a page that was there before would warn the agent.
        void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) return 90;
        memcpy(page, code, sizeof code);
        sw = (void (*)(void **, void *))page;
        for (int i = 0; i < 4; i++) {
            void **top = (void **)(stacks[i] + sizeof stacks[i]) - 2;
            *--top = (void *)body;
            sp[i] = top - 6;
            memset(sp[i], 0, 48);
        }
        int wrong = 0;
        for (int k = 0; k <= 100; k++) {
            for (int i = 0; i < 4; i++) { current = i; sw(&main_sp, sp[i]); }
            if (command == 's' && k == 50) wrong = storm();
        }
        munmap(page, 4096);
        printf("{\"sum\":%ld,\"calls\":{\"work\":%ld,\"plain\":%ld},\"parents\":{\"plain\":{\"work\":%ld}},\"wrong\":%d,\"children\":%d}\n",
               sum, works, plains, plains, wrong, command == 's' ? CHILDREN * 10 : 0);
        fflush(stdout);
    }
    return 43;
}
