/* Calls both versions of a library's function, the older one twice as often. */
#include "log.h"
int old(int);
int pay(int);
__asm__(".symver old, pay@SHOP_1");
int main(void) {
    log_start();
    for (int i = 0; i < 100; i++) {
        int y = old(i) + old(i) + pay(i);
        KEEP(y);
    }
    log_finish();
    return 0;
}
