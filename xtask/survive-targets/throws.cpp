// C++: exceptions through traced calls, rethrown, nested, in threads; coroutines that throw.
#include "target.h"
#include <coroutine>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>

namespace shop {
static long works, throwers, passes, throwns, passed;

struct Declined : std::runtime_error { using std::runtime_error::runtime_error; };
struct Guard { long &sum; ~Guard() { sum += 3; } };

PROBED int work(int i) { counted(&works); return i * 3 + 1; }
PROBED int thrower(int i) {
    counted(&throwers);
    if (i % 4 == 0) { counted(&throwns); throw Declined("order " + std::to_string(i)); }
    if (i % 4 == 1) { counted(&throwns); throw i; }
    return work(i);
}
PROBED int pass(int i, long &sum) {
    counted(&passes);
    Guard guard{sum};
    try { return thrower(i); }
    catch (const Declined &) {
        counted(&passed);
        if (i % 8 == 0) throw;
        std::throw_with_nested(std::logic_error("nested"));
    }
    catch (int) { return work(i); }
}

struct Task {
    struct promise_type {
        int value = 0;
        std::exception_ptr failure;
        Task get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_always initial_suspend() { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        std::suspend_always yield_value(int v) { value = v; return {}; }
        void return_void() {}
        void unhandled_exception() { failure = std::current_exception(); }
    };
    std::coroutine_handle<promise_type> handle;
};
Task numbers(int to, long &sum) {
    for (int i = 0; i < to; i++) co_yield pass(i, sum);
}
} // namespace shop

static long part(int from) {
    long sum = 0;
    for (int i = from; i < 240; i += 2) {
        try { sum += shop::pass(i, sum); }
        catch (const std::exception &e) { sum += (long)std::string(e.what()).size(); }
        if (i % 24 == 0) {
            auto task = shop::numbers(5, sum);
            for (int k = 0; k < 5 && !task.handle.done(); k++) { task.handle.resume(); sum += task.handle.promise().value; }
            if (task.handle.promise().failure) sum += 11;
            task.handle.destroy();
        }
    }
    return sum;
}
static int child_work(void) {
    long sum = 0, right = 0;
    for (int i = 2; i < 12; i += 2) {
        try { sum += shop::thrower(i); } catch (const shop::Declined &) { sum += 5; }
        right += i % 4 ? i * 3 + 1 : 5;
    }
    return sum == right ? 77 : 78;
}
int main(int count, char **arguments) {
    using namespace shop;
    if (count > 1 && !strcmp(arguments[1], "child")) return child_work();
    printf("ready %d\n", getpid());
    fflush(stdout);
    for (int command; (command = next_command());) {
        works = throwers = passes = throwns = passed = 0;
        long first = 0, second = 0;
        std::thread a([&] { first = part(0); }), b([&] { second = part(1); });
        int wrong = command == 's' ? storm() : 0;
        a.join(); b.join();
        printf("{\"sum\":%ld,\"calls\":{\"shop::work\":%ld,\"shop::thrower\":%ld,\"shop::pass\":%ld},"
               "\"failed\":{\"shop::thrower\":%ld,\"shop::pass\":%ld},\"parents\":{\"shop::thrower\":{\"shop::pass\":%ld}},"
               "\"wrong\":%d,\"children\":%d}\n", first + second, works, throwers, passes,
               throwns, passed, throwers, wrong, command == 's' ? CHILDREN * 7 : 0);
        fflush(stdout);
    }
    return 41;
}
