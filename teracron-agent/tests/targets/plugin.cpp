// A plugin: throws through the C code that called it, and catches.
#include <stdexcept>

extern "C" void thrower(int x) {
    if (x) throw std::runtime_error("from the plugin");
}

extern "C" int guarded(int (*through)(void (*)(int), int), int x) {
    try {
        return through(thrower, x);
    } catch (const std::exception &) {
        return -1;
    }
}
