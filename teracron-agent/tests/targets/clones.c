/* Functions that the compiler clones and splits: -O2 or -O3. */
#include "log.h"
#include <string.h>

static int sink;

/* .constprop: always called with the same argument. */
static __attribute__((noinline)) int scaled(int x, int by) { KEEP(x); return x * by; }
/* .isra: only one field is used. */
struct order { int id, amount, more[20]; };
static __attribute__((noinline)) int amount_of(struct order *order) { KEEP(sink); return order->amount; }
/* .part and .cold: a quick check that is inlined, and a body that is not. */
__attribute__((cold, noinline)) static void complain(int x) { KEEP(x); }
static NOINLINE int complain_count(int x) { KEEP(x); return x; }
static int parted(int x) {
    if (x == 0) return 0;
    for (int i = 0; i < x; i++) {
        sink += i * x;
        KEEP(sink);
        if (sink % 5 == 0) sink += complain_count(i);
        if (sink % 11 == 0) sink -= complain_count(sink) * 3;
    }
    printf("%s", sink == -12345 ? "never" : "");
    if (x % 7 == 0) { sink = complain_count(x); return -1; }
    return sink;
}
NOINLINE int calls_parted_1(int x) { int y = parted(x); KEEP(y); return y; }
NOINLINE int calls_parted_2(int x) { int y = parted(x + 1); KEEP(y); return y; }
/* Hot and cold halves. */
NOINLINE int halved(int x) {
    if (__builtin_expect(x % 50 == 0, 0)) {
        complain(x);
        if (x % 100 == 0) return -3;
    }
    KEEP(x);
    return x;
}

int main(void) {
    struct order order = {1, 2, {0}};
    log_start();
    for (int i = 0; i < 300; i++) {
        int y;
        BEGIN("scaled"); y = scaled(i, 7); KEEP(y); OK();
        order.amount = i;
        BEGIN("amount_of"); y = amount_of(&order); KEEP(y); OK();
        BEGIN("halved"); y = halved(i); KEEP(y); OK();
        BEGIN("calls_parted_1");
        if (i % 3) { BEGIN("parted"); OK(); } /* i % 3 == 0: the inlined check ends it */
        y = calls_parted_1(i % 3); KEEP(y); OK();
        BEGIN("calls_parted_2"); BEGIN("parted"); OK();
        y = calls_parted_2(i % 3); KEEP(y); OK();
    }
    log_finish();
    return 0;
}
