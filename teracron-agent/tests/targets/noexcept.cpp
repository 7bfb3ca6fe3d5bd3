// An exception that meets noexcept, an uncaught one, and one that a handler's cleanup survives.
#include "log.h"
#include <stdexcept>

namespace shop {
NOINLINE int throws(int x) {
    if (x > 0) throw std::runtime_error("gone");
    KEEP(x);
    return x;
}
NOINLINE int guarded(int x) noexcept {
    int y = throws(x);
    KEEP(y);
    return y;
}
NOINLINE int open_call(int x) {
    int y = throws(x);
    KEEP(y);
    return y;
}
}  // namespace shop

int main(int argc, char** argv) {
    log_start();
    int kind = argc > 1 ? atoi(argv[1]) : 0;
    shop::guarded(0);
    if (kind == 1) return shop::guarded(1);
    if (kind == 2) return shop::open_call(1);
    log_finish();
}
