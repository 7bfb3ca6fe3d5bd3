/* Two equal functions, which a linker may make one (--icf=all). */
#include "log.h"
namespace shop {
NOINLINE int charge(int x) {
    KEEP(x);
    return x * 3;
}
NOINLINE int refund(int x) {
    KEEP(x);
    return x * 3;
}
} // namespace shop

int main() {
    log_start();
    for (int i = 0; i < 100; i++) {
        int y = shop::charge(i);
        KEEP(y);
        y += shop::refund(i);
        KEEP(y);
    }
    log_finish();
    return 0;
}
