/* Calls in C of every shape that the site planner has to understand. */
#include "log.h"
#include <pthread.h>
#include <stdarg.h>

NOINLINE int leaf(int x) { KEEP(x); return x + 1; }

NOINLINE int leaf_with_branches(int x) {
    if (x % 3 == 0) return x * 2;
    if (x % 5 == 0) return x - 7;
    KEEP(x);
    return x ^ 5;
}

NOINLINE int middle(int x) {
    int y;
    BEGIN("leaf"); y = leaf(x); OK();
    BEGIN("leaf_with_branches"); y += leaf_with_branches(x); OK();
    KEEP(y);
    return y;
}

/* Enough cases for a jump table. */
NOINLINE int switching(int x) {
    int y = 0;
    switch (x & 15) {
    case 0: BEGIN("leaf"); y = leaf(1); OK(); break;
    case 1: return 3;
    case 2: y = x * 7; break;
    case 3: BEGIN("leaf"); y = leaf(5); OK(); return y;
    case 4: y = x << 3; break;
    case 5: y = x / 3; break;
    case 6: return x * x;
    case 7: y = 77; break;
    case 8: BEGIN("middle"); y = middle(x); OK(); break;
    case 9: y = x - 9; break;
    case 10: y = -x; break;
    default: return 1;
    }
    KEEP(y);
    return y + 1;
}

NOINLINE long factorial(int n) {
    long below;
    if (n <= 1) return 1;
    BEGIN("factorial"); below = factorial(n - 1); OK();
    KEEP(below);
    return n * below;
}

NOINLINE int with_array(int x) {
    volatile char buffer[5000];
    int y;
    buffer[x & 1023] = (char)x;
    BEGIN("leaf"); y = leaf(buffer[x & 1023]); OK();
    KEEP(y);
    return y;
}

NOINLINE int many(int a, int b, int c, int d, int e, int f, int g, int h, double i) {
    int y;
    BEGIN("leaf"); y = leaf(a + b + c + d + e + f + g + h + (int)i); OK();
    KEEP(y);
    return y;
}

NOINLINE int variadic(int count, ...) {
    va_list list;
    int sum = 0;
    va_start(list, count);
    for (int i = 0; i < count; i++) sum += va_arg(list, int);
    va_end(list);
    KEEP(sum);
    return sum;
}

/* The error path becomes a cold part. */
__attribute__((cold, noinline)) static void complain(int x) { KEEP(x); }
NOINLINE int mostly_good(int x) {
    int y = x;
    if (__builtin_expect(x % 97 == 0, 0)) {
        complain(x);
        y = -1;
        if (__builtin_expect(x % 194 == 0, 0)) {
            complain(y);
            return -2;
        }
    }
    BEGIN("leaf"); y += leaf(x); OK();
    KEEP(y);
    return y;
}

NOINLINE int top(int x) {
    int y;
    BEGIN("middle"); y = middle(x); OK();
    BEGIN("switching"); y += switching(x); OK();
    BEGIN("with_array"); y += with_array(x); OK();
    BEGIN("many"); y += many(1, 2, 3, 4, 5, 6, 7, 8, 9.0); OK();
    BEGIN("variadic"); y += variadic(3, x, 2, 3); OK();
    BEGIN("mostly_good"); y += mostly_good(x); OK();
    KEEP(y);
    return y;
}

static int rounds = 100;

static void *work(void *argument) {
    int thread = (int)(long)argument;
    for (int i = 0; i < rounds; i++) {
        BEGIN("top"); top(thread * 1000 + i); OK();
        if (i % 10 == 0) {
            BEGIN("factorial"); factorial(20); OK();
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    pthread_t ids[256];
    if (argc > 2) rounds = atoi(argv[2]);
    log_start();
    if (threads == 1) {
        work((void *)1L);
    } else {
        for (int i = 0; i < threads; i++) pthread_create(&ids[i], 0, work, (void *)(long)(i + 1));
        for (int i = 0; i < threads; i++) pthread_join(ids[i], 0);
    }
    log_finish();
    return 0;
}
