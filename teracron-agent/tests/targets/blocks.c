/* Blocks of lines: loops, returns, jumps and recursion in and out of them. The marks are found by the
 * test, which asks for the lines between them. */
#include "log.h"

NOINLINE int step(int x) { KEEP(x); return x + 1; }

NOINLINE int validate(int x) {
    int y = x;
    KEEP(y);
    BEGIN("validation");
    y = step(y);                                    /* validation: first */
    if (x % 5 == 0) {
        y = y * 3;
        KEEP(y);
    }
    for (int i = 0; i < x % 4; i++) {
        y += step(i);
        KEEP(y);
    }
    KEEP(y);                                        /* validation: last */
    OK();
    y = step(y);
    KEEP(y);
    return y;
}

/* Left by a return from within, or by falling out of its end. */
NOINLINE int early(int x) {
    int y = 0;
    KEEP(y);
    BEGIN("early exit");
    y = step(x);                                    /* early: first */
    KEEP(y);
    if (x % 3 == 0) {
        OK();
        return y;                                   /* early: in the middle */
    }
    y = step(y);
    KEEP(y);                                        /* early: last */
    OK();
    KEEP(y);
    return y + 1;
}

/* A block that is a loop: its first statement is passed once for each turn. */
NOINLINE int turns(int x) {
    int y = 0;
    KEEP(y);
    BEGIN("loop");
    do {
        y = step(y);                                /* loop: first */
        KEEP(y);
    } while (y < x % 7);                            /* loop: last */
    OK();
    KEEP(y);
    return y;
}

/* Recursion within the block. */
NOINLINE int nested(int n) {
    int y = n;
    KEEP(y);
    BEGIN("recursion");
    y += step(n);                                   /* recursion: first */
    if (n > 0) y += nested(n - 1);
    KEEP(y);                                        /* recursion: last */
    OK();
    KEEP(y);
    return y;
}

int main(void) {
    log_start();
    for (int i = 0; i < 60; i++) {
        validate(i);
        early(i);
        turns(i);
        nested(i % 4);
    }
    log_finish();
    return 0;
}
