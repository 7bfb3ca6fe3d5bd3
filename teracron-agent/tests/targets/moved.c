/* Parameters that are changed before the first instruction, kept in registers, or passed on the stack to a function that
 * makes its frame late: debug information says where they are later. Who calls writes down what it passes. */
#include "log.h"

#define KEPT __attribute__((noinline))
#ifndef REGISTER
#define REGISTER
#endif
static char lines[1 << 20];
static unsigned long used, seen;

#define SAY(call, what, ...) \
    used += snprintf(lines + used, sizeof lines - used, "{\"call\":\"" call "\",\"status\":\"succeeded\"," what "}\n", __VA_ARGS__)

KEPT int swapped(int from, int to) {
    int kept = from;
    from = to;
    to = kept;
    seen += from * 3 + to;
    return from - to;
}

KEPT int levelled(int level, int by) {
    level = 5;
    seen += level * by;
    return by;
}

static KEPT void work(int x) { seen += x; asm volatile("" ::: "memory"); }

KEPT long deep(REGISTER int depth, REGISTER long amount) {
    work(1);
    seen += depth * amount;
    work(2);
    if (depth > 0) {
        SAY("deep", "\"depth\":%d,\"amount\":%ld", depth - 1, amount + 100);
        deep(depth - 1, amount + 100);
    }
    work(depth);
    return amount;
}

KEPT double ninth(int depth, long a, long b, long c, long e, long h, double p8, long s1, int p9) {
    unsigned long x = 5;
    x = x * 31 + a;
    x = x * 31 + b;
    x = x * 31 + c;
    x = x * 31 + s1;
    x = x * 31 + p9;
    if (depth > 0) {
        SAY("ninth", "\"depth\":%d,\"s1\":%ld,\"p9\":%d", depth - 1, (long)(x >> 7), (int)(x & 1023));
        seen += (long)ninth(depth - 1, x, x >> 3, x >> 5, e, h, p8 + 1, x >> 7, (int)(x & 1023));
        seen += x + p9;
    }
    return p8;
}

int main(void) {
    log_start();
    for (int i = 0; i < 20; i++) {
        SAY("swapped", "\"from\":%d,\"to\":%d", i, 50);
        seen += swapped(i, 50);
        SAY("levelled", "\"level\":%d,\"by\":%d", 30 + i, i);
        seen += levelled(30 + i, i);
        SAY("deep", "\"depth\":%d,\"amount\":%ld", 2, 1000L * (i + 1));
        seen += deep(2, 1000L * (i + 1));
        SAY("ninth", "\"depth\":%d,\"s1\":%ld,\"p9\":%d", 2, 1000L + i, 5);
        seen += (long)ninth(2, i, i + 1, i + 2, i + 3, i + 4, 2.0, 1000 + i, 5);
    }
    fputs(lines, stdout);
    log_finish();
    return 0;
}
