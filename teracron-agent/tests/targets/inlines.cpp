/* Functions that are inlined at several places, some of them everywhere; each counts its own calls. */
#include "log.h"
#include <pthread.h>

static unsigned long prices, roundeds, totals, taxes;
#define COUNT(counter) __atomic_fetch_add(&(counter), 1, __ATOMIC_RELAXED)

namespace shop {

static inline int price(int x) {
    COUNT(prices);
    KEEP(x);
    return x * 3;
}

template <class T> inline T rounded(T x) {
    COUNT(roundeds);
    T y = x / 10 * 10;
    KEEP(y);
    return y;
}

struct Cart {
    int weight;
    __attribute__((always_inline)) inline int total(int k) {
        COUNT(totals);
        int sum = weight;
        for (int i = 0; i < k; i++) {
            sum += price(i);
            KEEP(sum);
        }
        return sum;
    }
};

/* Begins with a loop: what comes back to its first instruction is no call. */
__attribute__((always_inline)) inline int tax(int x) {
    while (x > 5) {
        KEEP(x);
        x -= 5;
    }
    COUNT(taxes);
    return x;
}

} // namespace shop

static int (*volatile through)(int) = shop::price;

NOINLINE static int buy(int n) {
    shop::Cart cart = {n};
    int sum = cart.total(n % 7) + shop::rounded(n) + (int)shop::rounded((long)n);
    if (n % 3 == 0) sum += shop::price(n) + cart.total(1);
    KEEP(sum);
    return sum + shop::tax(n % 40);
}

NOINLINE static int sell(int n) {
    int sum = shop::price(n);
    KEEP(sum);
    sum += through(n);
    for (int i = 0; i < 3; i++) sum += shop::rounded(i);
    return sum + shop::tax(n);
}

static void *work(void *) {
    int sum = 0;
    for (int n = 0; n < 500; n++) {
        sum += buy(n) + sell(n);
        KEEP(sum);
    }
    return nullptr;
}

int main() {
    log_start();
    pthread_t threads[4];
    for (auto &thread : threads) pthread_create(&thread, nullptr, work, nullptr);
    for (auto &thread : threads) pthread_join(thread, nullptr);
    printf("shop::price %lu\nshop::rounded %lu\nshop::Cart::total %lu\nshop::tax %lu\n", prices, roundeds, totals, taxes);
    log_finish();
    return 0;
}
