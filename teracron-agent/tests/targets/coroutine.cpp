// A coroutine, which is refused, and a function that it calls.
#include "log.h"
#include <coroutine>

struct Task {
    struct promise_type {
        Task get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_never initial_suspend() { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() {}
    };
    std::coroutine_handle<promise_type> handle;
};

namespace shop {
NOINLINE int step(int x) { KEEP(x); return x + 1; }
NOINLINE Task checkout(int x) {
    x = step(x);
    co_await std::suspend_always{};
    x = step(x);
}
}  // namespace shop

int main() {
    log_start();
    Task task = shop::checkout(1);
    task.handle.resume();
    task.handle.destroy();
    log_finish();
}
