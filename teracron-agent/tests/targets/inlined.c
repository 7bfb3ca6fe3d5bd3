/* One call of helper is inlined, one goes through a pointer. */
#include "log.h"

int helper(int x) { return x + 1; }
int (*volatile through)(int) = helper;

int main(void) {
    log_start();
    int x = 1;
    KEEP(x);
    int y = helper(x);
    KEEP(y);
    y += through(2);
    KEEP(y);
    log_finish();
    return 0;
}
