/* Calls with arguments that are captured, and that write themselves what these are: one line of JSON for
 * each call, in order. Canaries stand beside everything that is asked for. */
#include <errno.h>
#include <stdarg.h>
#include "log.h"
#define KEEP_ALL() asm volatile("" ::: "memory")

enum color { RED, GREEN = 5, BLUE = -3 };

struct customer {
    char before[16];
    int id;
    char middle[16];
    const char *name;
    char code[8];
    char after[16];
};

struct order {
    char before[16];
    long id;
    struct customer *customer;
    enum color color;
    double price;
    float ratio;
    _Bool paid;
    char letter;
    struct { short inner; };
    unsigned char raw;
    unsigned before_bits : 3, state : 5, between : 7;
    int signed_bits : 9;
    unsigned long wide : 40;
    _Bool bit : 1, after_bit : 1;
    char after[16];
};

struct pair { long a; int b; };

/* Made while it runs, so that it is nowhere but in memory. */
static char canary[16];

static void make_canary(void) {
    static const char hidden[] = "DBOBSZDBOBSZ";
    for (int i = 0; i < 12; i++) canary[i] = hidden[i] - 1;
}

static char lines[1 << 20];
static unsigned long used;

static void say(const char *format, ...) {
    va_list list;
    va_start(list, format);
    used += vsnprintf(lines + used, sizeof lines - used, format, list);
    va_end(list);
}

NOINLINE int charge(const struct order *order, long amount, const char *note, enum color color, char flag,
                    unsigned count, long seventh, const char *secret) {
    KEEP_ALL();
    if (amount < 0) {
        errno = ENOENT;
        return -1;
    }
    if (secret[0] != 'C') return -2;
    return (int)(amount + order->id + (note != 0) + color + flag + count + seventh);
}

NOINLINE struct pair two(struct pair pair, int k) {
    KEEP_ALL();
    pair.a += k;
    pair.b -= k;
    return pair;
}

NOINLINE const char *find(int k) {
    KEEP_ALL();
    return k & 1 ? "odd" : 0;
}

/* Known to all its callers: an optimiser may do with its result what it likes. */
static NOINLINE long hidden(long k) { KEEP(k); return k * 3; }

NOINLINE int longest(const char *text, char *unreadable) { KEEP_ALL(); return text[0] + (unreadable == 0); }

int main(void) {
    static struct customer customer = {.id = 42, .name = "Ada \"Lovelace\"", .code = "AB12"};
    static struct order order = {.id = 7, .customer = &customer, .color = BLUE, .price = 1.5, .ratio = 2.25f, .paid = 1,
                                 .letter = 'x', .inner = -9, .raw = 200, .before_bits = 5, .state = 21, .between = 99, .signed_bits = -200,
                                 .wide = 0xabcdef0123, .bit = 1};
    static char text[2000];
    volatile char stack[64];
    make_canary();
    for (int i = 0; i < 64; i++) stack[i] = canary[i % 12];
    memcpy(customer.before, canary, 16);
    memcpy(customer.middle, canary, 16);
    memcpy(customer.after, canary, 16);
    memcpy(order.before, canary, 16);
    memcpy(order.after, canary, 16);
    memset(text, 'a', 600);
    strcpy(text + 600, canary);
    log_start();
    for (int i = 0; i < 40; i++) {
        long amount = i % 4 == 3 ? -i : 100 + i;
        order.id = i * 1000003L;
        int ret = charge(&order, amount, i & 1 ? "hello" : 0, GREEN, 'y', 4000000000u - i, -77 - i, canary);
        say("{\"call\":\"charge\",\"order.id\":%ld,\"order->customer->name\":\"Ada \\\"Lovelace\\\"\","
            "\"order.customer.id\":42,\"order.customer.code\":\"AB12\",\"order.color\":\"BLUE\",\"order.price\":1.5,"
            "\"order.ratio\":2.25,\"order.paid\":true,\"order.letter\":\"x\",\"order.inner\":-9,\"order.raw\":200,"
            "\"order.state\":21,\"order.signed_bits\":-200,\"order.wide\":737894400291,\"order.bit\":true,"
            "\"amount\":%ld,\"note\":\"%s\",\"color\":\"GREEN\",\"flag\":\"y\",\"count\":%u,\"seventh\":%d,\"ret\":%d,"
            "\"status\":\"%s%s\"}\n",
            order.id, amount, i & 1 ? "hello" : "null", 4000000000u - i, -77 - i, ret,
            ret < 0 ? "failed ret < 0" : "succeeded",
            ret < 0 && errno ? "|ENOENT: No such file or directory" : "");
        struct pair pair = two((struct pair){i, 5}, 2);
        say("{\"call\":\"two\",\"pair.a\":%d,\"pair.b\":5,\"k\":2,\"ret.a\":%ld,\"ret.b\":%d,\"status\":\"succeeded\"}\n",
            i, pair.a, pair.b);
        const char *found = find(i);
        say("{\"call\":\"find\",\"k\":%d,\"ret\":\"%s\",\"status\":\"%s%s\"}\n", i, found ? found : "null",
            found ? "succeeded" : "failed returned nothing",
            found || !errno ? "" : "|ENOENT: No such file or directory");
        long h = hidden(i);
        say("{\"call\":\"hidden\",\"ret\":%ld,\"status\":\"succeeded\"}\n", h);
        longest(text, (char *)8);
        say("{\"call\":\"longest\",\"text\":\"%.512s\",\"status\":\"succeeded\"}\n", text);
    }
    KEEP(stack[0]);
    fputs(lines, stdout);
    log_finish();
    return 0;
}
