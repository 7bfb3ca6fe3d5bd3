/* No C library, no start-up code and so no unwind table: gcc -nostdlib -fno-asynchronous-unwind-tables.
 * Makes 200 calls after a line of input. */
static long system_call(long number, long a, long b, long c) {
    long answer;
    __asm__ volatile("syscall"
                     : "=a"(answer)
                     : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return answer;
}

__attribute__((noinline)) int work(int number) {
    __asm__ volatile("");
    return number + 1;
}

static void say(const char *text, long length) { system_call(1, 1, (long)text, length); }

void _start(void) {
    char text[32] = "ready ";
    int at = 6;
    char digits[12];
    int count = 0;
    for (long pid = system_call(39, 0, 0, 0); pid; pid /= 10) digits[count++] = '0' + pid % 10;
    while (count) text[at++] = digits[--count];
    text[at++] = '\n';
    say(text, at);
    char line[16];
    if (system_call(0, 0, (long)line, sizeof line) > 0)
        for (int i = 0, sum = 0; i < 200; i++) sum = work(sum);
    say("done\n", 5);
    while (system_call(0, 0, (long)line, sizeof line) > 0) {}
    system_call(231, 0, 0, 0);
    __builtin_unreachable();
}
