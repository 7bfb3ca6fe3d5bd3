/* Results that the compiler drops, since it knows all callers and none of them looks: what lies in the register then is
 * anything. Each call writes down what it returned as the source has it. */
#include "log.h"

struct box { int t; };
#define KEPT __attribute__((noinline))
static char lines[1 << 20];
static unsigned long used;

#define SAY(call, what, ...) \
    used += snprintf(lines + used, sizeof lines - used, "{\"call\":\"" call "\",\"status\":\"%s\"," what "}\n", __VA_ARGS__)

/* The argument, its address, a product of it: left in the register. */
static KEPT int address_left(struct box *b, int k) { asm volatile("" :: "r"(&k), "r"(b) : "memory"); return b->t; }
static KEPT int argument_left(struct box *b, int k) { asm volatile("" :: "r"(k), "r"(b) : "memory"); return b->t; }
static KEPT int product_left(struct box *b, int k) { int x = k * 3; asm volatile("" :: "r"(x), "r"(b) : "memory"); return b->t; }
/* Always the same: its caller knows. */
static KEPT int always(int k) { asm volatile("" :: "r"(k * 7) : "memory"); return 4711; }
/* Nobody looks at the structure. */
struct large { long a, b, c; };
static KEPT struct large stored(struct box *b, int k) {
    struct large made = { k, k + 1, b->t };
    asm volatile("" :: "r"(&k), "r"(b) : "memory");
    return made;
}
/* One caller looks, one does not: it is kept. */
static KEPT int sometimes(struct box *b, int k) { asm volatile("" :: "r"(k), "r"(b) : "memory"); return b->t + k; }
/* Its address is taken. */
static KEPT int pointed_to(struct box *b, int k) { asm volatile("" :: "r"(k), "r"(b) : "memory"); return b->t - k; }
static int (*volatile pointer)(struct box *, int) = pointed_to;
/* Handed on to who looks. */
static KEPT int handed_on(struct box *b, int k) { asm volatile("" :: "r"(k), "r"(b) : "memory"); return b->t + 2 * k; }
KEPT int hands_on(struct box *b, int k) { asm volatile("" ::: "memory"); return handed_on(b, k + 1); }

int main(void) {
    struct box b = { 9 };
    asm volatile("" : "+m"(b));
    log_start();
    for (int i = 1; i <= 20; i++) {
        address_left(&b, i);
        SAY("address_left", "\"ret\":%d", "succeeded", 9);
        argument_left(&b, i);
        SAY("argument_left", "\"ret\":%d", "succeeded", 9);
        product_left(&b, i);
        SAY("product_left", "\"ret\":%d", "succeeded", 9);
        int r = always(i);
        SAY("always", "\"ret\":%d", "succeeded", r);
        stored(&b, i);
        SAY("stored", "\"ret.b\":%d", "succeeded", i + 1);
        sometimes(&b, i);
        SAY("sometimes", "\"ret\":%d", "succeeded", 9 + i);
        r = sometimes(&b, -i);
        SAY("sometimes", "\"ret\":%d", "succeeded", r);
        pointer(&b, i);
        SAY("pointed_to", "\"ret\":%d", "succeeded", 9 - i);
        r = hands_on(&b, i);
        SAY("handed_on", "\"ret\":%d", "succeeded", r);
    }
    fputs(lines, stdout);
    log_finish();
    return 0;
}
