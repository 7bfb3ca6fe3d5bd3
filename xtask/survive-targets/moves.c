// Moves its own text into anonymous memory, as programs do that want it in huge pages: at the first round, or
// (MOVE=start) before it is ready.
#include "target.h"
#include <stdint.h>
#include <sys/mman.h>

static long works, others;
static char buffer[8192];

__attribute__((noinline, noipa, section(".moved"), aligned(4096))) int work(int i) { counted(&works); return i * 2 + 1; }
__attribute__((noinline, noipa, section(".moved"))) int other(int i) { counted(&others); return work(i) + 1; }

// On a page of its own: nothing else runs while the text is away.
__attribute__((noinline, noipa, section(".mover"), aligned(4096))) static void mover(char *from, long size) {
    for (long i = 0; i < size; i++) buffer[i] = from[i];
    register long rax __asm__("rax") = 9;
    register long r10 __asm__("r10") = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, r8 __asm__("r8") = -1, r9 __asm__("r9") = 0;
    __asm__ volatile("syscall" : "+r"(rax) : "D"(from), "S"(size), "d"(7L), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    for (long i = 0; i < size; i++) from[i] = buffer[i];
}
static int child_work(void) {
    int got = 0;
    for (int i = 0; i < 10; i++) got += work(i);
    return got == 100 ? 77 : 78;
}
static void move(void) { mover((char *)((uintptr_t)work & ~4095ul), 4096); }
int main(int count, char **arguments) {
    if (count > 1 && !strcmp(arguments[1], "child")) return child_work();
    int moved = getenv("MOVE") && !strcmp(getenv("MOVE"), "start");
    if (moved) move();
    printf("ready %d\n", getpid());
    fflush(stdout);
    for (int command; (command = next_command());) {
        works = others = 0;
        long sum = 0;
        for (int i = 0; i < 500; i++) {
            sum += other(i);
            if (i == 250 && !moved) { move(); moved = 1; }
        }
        int wrong = command == 's' ? storm() : 0;
        printf("{\"sum\":%ld,\"calls\":{\"work\":%ld,\"other\":%ld},\"parents\":{\"work\":{\"other\":%ld}},\"wrong\":%d,\"children\":%d}\n",
               sum, works, others, works, wrong, command == 's' ? CHILDREN * 10 : 0);
        fflush(stdout);
    }
    return 44;
}
