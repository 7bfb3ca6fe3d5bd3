#include "log.h"
int pay(int);
int main(void) {
    log_start();
    for (int i = 0; i < 100; i++) {
        BEGIN("pay"); BEGIN("pay_inner");
        int y = pay(i); KEEP(y);
        OK(); OK();
    }
    log_finish();
    return 0;
}
